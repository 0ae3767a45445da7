"""What a training shows while it goes on, on a terminal and in a log."""

import sys

import pytest
from tiny_runs import tiny_settings

from geco_ext.training import progress
from geco_ext.training.remarks import format_number
from geco_ext.training.run_folder import read_history
from geco_ext.training.session import resume, start


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_goes_to_stderr_with_constraints_and_multipliers(tmp_path, capsys, monkeypatch, is_terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    path = tmp_path / "run"
    start(tiny_settings(steps=15, constraints=("re=0.3", "pncc=0.2:4")), path).train()
    resume(path, steps=20).train()
    output = capsys.readouterr()
    assert output.out == ""
    last = output.err.strip().splitlines()[-1].split("\r")[-1]
    assert last.startswith("training: 100%" if is_terminal else "training: 20/20 steps, 100%, ")
    assert ("20/20 [" in last) == is_terminal
    assert "step/s" in last
    record = {name: values[-1] for name, values in read_history(path / "metrics.csv").items()}
    for name in ("reconstruction_error", "patch_ncc"):
        numbers = f"{record[f'moving_average/{name}']:+.2g} x {format_number(record[f'multiplier/{name}'])}"
        assert f"{name}={numbers}" in last
    assert f"RMSE={record['rmse']:.4g}" in last


@pytest.mark.parametrize(("seconds", "lines"), [(1e6, 2), (0.0, 17)])
def test_a_log_gets_a_line_at_both_ends_and_between_them_by_the_clock(tmp_path, capsys, monkeypatch, seconds, lines):
    monkeypatch.setattr(progress, "LOG_SECONDS", seconds)
    start(tiny_settings(steps=15), tmp_path / "run").train()
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == lines
    assert shown[0].startswith("training: 0/15 steps, 0%, ")
    assert shown[-1].startswith("training: 15/15 steps, 100%, ")


def test_numbers_are_asked_for_where_they_are_shown_and_nowhere_else(tmp_path, capsys):
    asked = []
    session = start(tiny_settings(steps=15), tmp_path / "run")
    bar = session.trainer.progress_bar_callback
    numbers, bar.numbers = bar.numbers, lambda: asked.append(1) or numbers()
    session.train()
    assert len(asked) == capsys.readouterr().err.count("\n") == 2

"""`geco train --kappa-schedule`: recorded, judged by the target, resumed where it was."""

import json

import pytest
from tiny_runs import TINY_OPTIONS, assert_same_end, one_line, tiny_settings, train_until

import geco_ext
from geco_ext.cli import main
from geco_ext.training import session
from geco_ext.training.run_folder import read_history

SCHEDULE = {"constraints": ("re=0.2", "pncc=0.5:3"), "kappa_schedule": "8"}


def train(path, *options):
    return main(["train", *TINY_OPTIONS, *options, "--quiet", "--out", str(path)])


def test_it_is_recorded_and_ends_at_the_constraints_own_kappa(tmp_path):
    path = tmp_path / "run"
    assert train(path, "--constraint", "re=0.2", "--steps", "30", "--kappa-schedule", "25:0.5:linear") == 0
    history = read_history(path / "metrics.csv")
    steps, kappas = history["step"], history["kappa/reconstruction_error"]
    assert kappas == pytest.approx([max(0.5 - 0.3 * step / 25, 0.2) for step in steps])
    loaded = geco_ext.load_run(path)
    assert loaded.criterion.constraints[0].kappa == loaded.criterion.constraints[0].kappa_target == 0.2
    assert loaded.config.kappa_schedule == "25:0.5:linear"


def test_the_table_judges_by_the_target_where_the_schedule_has_not_ended(tmp_path):
    path = tmp_path / "run"
    assert train(path, "--constraint", "re=0.01", "--steps", "5", "--kappa-schedule", "500:2") == 0
    (result,) = json.loads((path / "results.json").read_text())["constraints"]
    assert result["kappa"] == 0.01
    assert not result["met"]
    assert result["violation"] == pytest.approx((result["reached"] / 0.01) ** 2 - 1, rel=1e-6)


def test_it_goes_on_where_it_was_interrupted(tmp_path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    session.start(tiny_settings(**SCHEDULE), straight).train()
    train_until(session.start(tiny_settings(**SCHEDULE), stopped), 7)
    session.resume(stopped).train()
    assert_same_end(stopped, straight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kappa-schedule", "half"], "kappa schedule must be STEPS[:START[:SHAPE]]"),
        (["--kappa-schedule", "0"], "kappa schedule must be STEPS[:START[:SHAPE]]"),
        (["--kappa-schedule", "10:0.3:round"], "kappa schedule must be STEPS[:START[:SHAPE]]"),
        (["--kappa-schedule", "10:0.05"], "start: got 0.05, which is tighter than the target of 0.1"),
        (["--kappa-schedule", "10", "--objective", "elbo"], "cannot be given with the objective 'elbo'"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_no_folder(tmp_path, capsys, options, message):
    assert train(tmp_path / "run", *options) == 2
    assert message in one_line(capsys.readouterr())
    assert not (tmp_path / "run").exists()


def test_an_objective_of_ones_own_without_constraints_has_no_kappa(tmp_path, capsys):
    code = tmp_path / "own.py"
    code.write_text("from geco_ext.training import GaussianObjective\n\n\nclass Mine(GaussianObjective): ...\n")
    assert train(tmp_path / "run", "--kappa-schedule", "10", "--objective", f"{code}:Mine") == 2
    assert "kappa schedule cannot be given with the objective" in one_line(capsys.readouterr())
    assert not (tmp_path / "run").exists()

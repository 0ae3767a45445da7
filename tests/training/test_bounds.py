"""Bounds and start of the multipliers as options, and what is said where a multiplier rests on its bound."""

import json
from types import SimpleNamespace

import pytest
from tiny_runs import TINY_OPTIONS, one_line

import geco_ext
from geco_ext.cli import main
from geco_ext.training import bounds
from geco_ext.training.bounds import WarnAtBound
from geco_ext.training.run_folder import read_history


def test_a_multiplier_held_by_its_bound_is_said_once_and_in_the_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bounds, "UPDATES", 40)
    path = tmp_path / "run"
    given = ("--multiplier-bounds", "0.5:2", "--multiplier-init", "1", "--batch-size", "20")
    assert main(["train", *TINY_OPTIONS, "--steps", "100", "--constraint", "re=0.05", *given, "--out", str(path)]) == 0
    captured = capsys.readouterr()
    assert (
        captured.err.count("geco: warning: the multiplier of reconstruction_error has rested on its upper bound") == 1
    )
    assert "(2) for 40 updates" in captured.err
    assert "--multiplier-bounds LOW:HIGH" in captured.err
    assert "| NO, at bound |" in captured.out
    history = read_history(path / "metrics.csv")
    assert 1.0 < history["multiplier/reconstruction_error"][0] <= 2.0
    assert max(history["multiplier/reconstruction_error"]) == pytest.approx(2.0)
    assert json.loads((path / "results.json").read_text())["constraints"][0]["at_bound"]
    run = geco_ext.load_run(path)
    assert (run.config.multiplier_init, run.config.multiplier_bounds) == ("1", "0.5:2")


def warnings_of(records):
    """What is said of a training of one constraint, kappa = 0.1, whose records are (at_bound, C/s)."""
    criterion = geco_ext.GECOLoss(geco_ext.ReconstructionError(0.1, name="re"))
    said = []
    trainer = SimpleNamespace(global_step=0, print=lambda text, file: said.append(text))
    latest = {}
    callback = WarnAtBound(lambda: latest)
    for at_bound, violation in records:
        trainer.global_step += 10
        latest |= {"moving_average/re": 0.01 * violation, "at_bound/re": float(at_bound), "multiplier/re": 3.0}
        latest["kappa/re"] = 0.1
        callback.on_train_batch_end(trainer, SimpleNamespace(criterion=criterion), None, None, 0)
    return said


def test_two_hundred_updates_in_a_row_are_needed():
    assert warnings_of([(True, 1.0)] * 20) == []
    assert len(warnings_of([(True, 1.0)] * 21)) == 1
    assert len(warnings_of([(True, 1.0)] * 100)) == 1
    assert warnings_of(([(True, 1.0)] * 20 + [(False, 1.0)]) * 5) == []


def test_a_constraint_that_is_met_or_soon_will_be_is_not_spoken_of():
    assert warnings_of([(True, 0.04)] * 50) == []
    falling = [(True, 0.9**record) for record in range(25)]  # to a tenth in 200 updates
    assert warnings_of(falling) == []
    assert len(warnings_of(falling + [(True, 0.1)] * 30)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--objective", "GECOLoss(multiplier_init=2.0)", "--multiplier-init", "3"],
            "multiplier_init is given here and",
        ),
        (["--objective", "paper:0.1", "--multiplier-bounds", "1:2"], "cannot be given with the objective 'paper:0.1'"),
        (["--multiplier-bounds", "1"], "multiplier bounds must be auto or LOW:HIGH"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, capsys, options, message):
    assert main(["train", *TINY_OPTIONS, *options, "--out", str(tmp_path / "run")]) == 2
    assert message in one_line(capsys.readouterr())


def test_a_call_and_an_option_may_each_give_what_the_other_does_not(tmp_path):
    options = ["--objective", "GECOLoss(alpha=0.9)", "--multiplier-init", "3", "--steps", "1"]
    assert main(["train", *TINY_OPTIONS, *options, "--out", str(tmp_path / "run")]) == 0
    assert geco_ext.load_run(tmp_path / "run").criterion.alpha == 0.9

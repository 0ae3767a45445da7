"""Examples held out: measured beside the training set, without a trace in the training, and a reason to stop."""

import json

import numpy as np
import pytest
import torch
from tiny_runs import TINY_OPTIONS, assert_same_end, tiny_settings, train_until

import geco_ext
from geco_ext.cli import main
from geco_ext.training import held_out, session
from geco_ext.training.evaluation import Evaluation
from geco_ext.training.run_folder import RunFolder, read_history
from geco_ext.training.session import resume, start


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("held_out") / "run"
    options = ["--steps", "12", "--checkpoint-every", "5", "--constraint", "re=0.3"]
    assert main(["train", *TINY_OPTIONS, *options, "--out", str(path)]) == 0
    return path


def test_results_have_both_columns(trained):
    results = json.loads((trained / "results.json").read_text())
    (constraint,) = results["constraints"]
    assert results["held_out"]["examples"] == 297
    assert constraint["held_out_reached"] == pytest.approx(results["held_out"]["rmse"], rel=1e-6)
    assert results["held_out"]["rmse"] != results["rmse"]
    assert constraint["held_out_met"] == (constraint["held_out_violation"] <= 0.05)
    table = (trained / "results.md").read_text()
    assert "| held out | met held out |" in table
    assert "on the training set, 3 posterior samples an example." in table
    assert "on 297 examples that were not trained on, 14 posterior samples each." in table


def test_they_are_measured_at_every_checkpoint(trained):
    history = read_history(trained / "held_out.csv")
    assert history["step"] == [5, 10, 12]
    results = json.loads((trained / "results.json").read_text())
    # Over fewer posterior samples than at the end, 4 and 14 of each of the 297 examples.
    assert history["rmse"][-1] == pytest.approx(results["held_out"]["rmse"], rel=1e-3)
    assert results["held_out"]["samples"] == 14
    assert history["constraint/reconstruction_error"][-1] == pytest.approx(history["rmse"][-1] ** 2 - 0.09, abs=1e-6)


def test_the_training_is_the_same_to_the_bit_without_them(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "split_off", lambda dataset, settings: (dataset, None))
    straight = tmp_path / "straight"
    start(tiny_settings(constraints=("re=0.3",)), straight).train()
    assert_same_end(trained, straight)


def test_a_share_of_the_examples_is_held_out_the_same_when_resumed(tmp_path):
    images = np.random.default_rng(0).random((40, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    changes = {"data": f"npy:{tmp_path}/images.npy", "validation": 0.25, "batch_size": 8, "steps": 2}
    begun = start(tiny_settings(**changes), tmp_path / "run")
    parts = begun.dataset[:]["x"], begun.held_out[:]["x"]
    assert [len(part) for part in parts] == [27, 9]  # of the 36 that are not for testing
    assert len(torch.cat(parts).unique(dim=0)) == 36
    begun.train()
    again = resume(tmp_path / "run", steps=3)
    assert torch.equal(again.held_out[:]["x"], parts[1])
    assert torch.equal(again.dataset[:]["x"], parts[0])


def test_a_share_of_nothing_is_refused():
    dataset = geco_ext.data.load("micro-digits", size=8)
    with pytest.raises(ValueError, match=r"validation: 0.01 of 7 examples is 0, expected at least one"):
        held_out.split_off(dataset, tiny_settings(validation=0.01))
    with pytest.raises(ValueError, match="validation must be a share between 0 and 1, got 1"):
        tiny_settings(validation=1.0)


def test_data_without_a_test_split_are_trained_on_all_the_same(tmp_path, monkeypatch):
    dataset = geco_ext.data.load("digits", size=8)

    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(geco_ext.data, "load", missing)
    assert held_out.split_off(dataset, tiny_settings()) == (dataset, None)
    monkeypatch.setattr(session, "_training_set", lambda settings: dataset)
    with pytest.raises(ValueError, match="patience needs examples held out, and data 'digits' has no test split"):
        start(tiny_settings(patience=2), tmp_path / "run")


def test_of_many_examples_some_of_all_classes_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(held_out, "MOST_DURING", 20)
    by_class = geco_ext.data.ImageDataset(torch.zeros(90, 1, 8, 8), torch.arange(90) // 9)
    looked_at = held_out.EvaluateHeldOut(RunFolder(tmp_path), by_class, tiny_settings()).dataset
    assert looked_at.labels.bincount().tolist() == [2] * 10


def test_training_stops_where_patience_ends_and_keeps_the_best(tmp_path, monkeypatch, capsys):
    excesses = iter([0.5, 0.2, 0.3, 0.2, 0.1])

    def measured(module, dataset, seed, reconstructions):
        excess = next(excesses, 0.0)
        return Evaluation(rmse=0.3, kl=1.0, constraints=torch.tensor([0.09 * excess], dtype=torch.float64), elements=64)

    monkeypatch.setattr(held_out, "evaluate", measured)
    path = tmp_path / "run"
    options = ["--steps", "40", "--checkpoint-every", "3", "--patience", "2", "--constraint", "re=0.3"]
    assert main(["train", *TINY_OPTIONS, *options, "--out", str(path)]) == 0
    folder = RunFolder(path)
    assert folder.read_checkpoint(folder.last_checkpoint)["global_step"] == 12
    assert folder.read_checkpoint(folder.best_checkpoint)["global_step"] == 6
    assert geco_ext.load_run(folder.best_checkpoint).step == 6
    assert "Stopped early, after 12 steps" in capsys.readouterr().out
    assert json.loads((path / "results.json").read_text())["steps"] == 12


def test_a_resumed_run_has_the_same_best_state_to_beat(tmp_path, monkeypatch):
    """Best at step 6 of a score that then rises: wherever it was interrupted, it ends at 12 and keeps step 6."""
    steps = []
    measure = held_out.EvaluateHeldOut._measure

    def measured(self, trainer, module):
        steps.append(trainer.global_step)
        return measure(self, trainer, module)

    monkeypatch.setattr(held_out.EvaluateHeldOut, "_measure", measured)
    monkeypatch.setattr(held_out, "score", lambda criterion, evaluation: (abs(steps[-1] - 6.0), 0.0))
    path = tmp_path / "run"
    train_until(start(tiny_settings(steps=40, checkpoint_every=3, patience=2), path), 10)
    resume(path).train()
    folder = RunFolder(path)
    assert folder.read_checkpoint(folder.last_checkpoint)["global_step"] == 12
    assert folder.read_checkpoint(folder.best_checkpoint)["global_step"] == 6


def test_a_met_constraint_leaves_the_kl_to_decide():
    criterion = geco_ext.GECOLoss(geco_ext.ReconstructionError(0.1))

    def found(share, kl):
        c = torch.tensor([0.01 * share], dtype=torch.float64)
        return held_out.score(criterion, Evaluation(rmse=0.1, kl=kl, constraints=c, elements=64))

    assert found(0.04, 5.0) < found(-0.5, 6.0) < found(0.06, 1.0) < found(0.5, 0.5)

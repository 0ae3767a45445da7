"""Run folders, a classifier and a criterion's state that an earlier version wrote (fixtures/README.md)."""

import csv
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

import geco_ext
from geco_ext.state import LATER_ROWS

FIXTURES = Path(__file__).parents[1] / "fixtures"
MADE_IN = "/tmp/geco_fixtures"
RUNS = ("geco", "paper", "anneal")


@pytest.fixture
def run(request, tmp_path):
    """A copy of a run folder, with the classifier where its configuration says."""
    pytest.importorskip("lightning")
    threads = torch.get_num_threads()
    path = tmp_path / request.param
    shutil.copytree(FIXTURES / request.param, path)
    file = path / "config.json"
    file.write_text(file.read_text().replace(MADE_IN, str(FIXTURES)))
    yield path
    torch.set_num_threads(threads)


def command(*arguments):
    from geco_ext.cli import main

    return main([str(argument) for argument in arguments])


def last_record(file):
    *_, record = csv.DictReader(file.read_text().splitlines())
    return {name: float(value) for name, value in record.items()}


@pytest.mark.parametrize("run", RUNS, indirect=True)
def test_it_loads(run):
    loaded = geco_ext.load_run(run)
    assert (loaded.step, loaded.config.steps) == (10, 20)
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for part in ("model", "criterion"):
        for name, value in getattr(loaded, part).state_dict().items():
            if name in LATER_ROWS:
                continue
            assert torch.equal(value, state[f"{part}.{name}"]), name


def assert_close(found, expected):
    """The same words and, to rounding, the same numbers."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_close(found[name], value)
    elif isinstance(expected, list):
        for pair in zip(found, expected, strict=True):
            assert_close(*pair)
    else:
        assert found == (pytest.approx(expected, rel=1e-3, abs=1e-6) if isinstance(expected, float) else expected)


@pytest.mark.parametrize("run", RUNS, indirect=True)
def test_it_goes_on_with_the_same_batches_and_noise_and_reports_the_same(run, monkeypatch):
    """The report was measured over one posterior sample of each example."""
    from geco_ext.training import report

    monkeypatch.setattr(report, "evaluate", partial(report.evaluate, reconstructions=1))
    expected, results = last_record(run / "metrics.csv"), json.loads((run / "results.json").read_text())
    assert command("train", "--resume", run) == 0
    assert_close(last_record(run / "metrics.csv"), expected)
    reported = json.loads((run / "results.json").read_text())
    assert reported["held_out"]["examples"] > 0
    assert_close(known_to(results, {**reported, "seconds": 0}), {**results, "seconds": 0})


def known_to(earlier, results):
    """Results without what an earlier version did not measure."""
    constraints = [
        {name: value for name, value in result.items() if name in of_earlier}
        for result, of_earlier in zip(results["constraints"], earlier["constraints"], strict=True)
    ]
    return {name: value for name, value in {**results, "constraints": constraints}.items() if name in earlier}


@pytest.mark.parametrize("run", ["geco", "paper"], indirect=True)
def test_it_is_drawn(run):
    assert command("sample", run, "-n", 4) == 0
    assert command("reconstruct", run, "-n", 4) == 0
    assert {"samples-0.png", "reconstructions-train-0.png"} <= {file.name for file in run.iterdir()}


@pytest.mark.parametrize("run", ["geco"], indirect=True)
def test_one_with_a_tolerance_of_zero_has_a_model_and_no_criterion(run, capsys):
    """Earlier versions took it; what goes on with it is one line."""
    file = run / "config.json"
    file.write_text(file.read_text().replace('"re=0.3"', '"re=0"'))
    with pytest.warns(UserWarning, match="criterion is left out, .*'re=0': kappa: got 0.0.* a new run") as caught:
        loaded = geco_ext.load_run(run)
    assert loaded.criterion is None
    assert loaded.model.sample(2).shape == (2, 1, 8, 8)
    assert caught[0].filename == __file__
    assert command("sample", run, "-n", 4) == 0
    assert capsys.readouterr().err.startswith("geco: warning: load_run: the criterion is left out")
    assert command("train", "--resume", run) == 2
    assert capsys.readouterr().err.startswith("geco: error: constraint 're=0': kappa: got 0.0, expected one that")


def test_a_classifier_serves_new_runs(tmp_path):
    pytest.importorskip("lightning")
    file = FIXTURES / "classifier.pt"
    options = ["--size", 8, "--steps", 2, "--threads", 1, "--accelerator", "cpu"]
    options += ["--constraint", f"cla=0.9:{file}", "--constraint", f"fre=0.9:{file}"]
    assert command("train", *options, "--out", tmp_path / "run") == 0


def test_a_criterion_goes_on_as_it_would_have():
    saved = torch.load(FIXTURES / "criterion.pt", weights_only=True)
    constraints = [geco_ext.ReconstructionError(0.1, channels=2), geco_ext.PatchNCC(0.9, 3)]
    criterion = geco_ext.GECOLoss(constraints, accumulation_steps=2)
    criterion.load_state_dict(saved["state_dict"])
    losses = torch.stack([criterion(*call) for call in saved["calls"]])
    torch.testing.assert_close(losses, saved["losses"], rtol=1e-5, atol=1e-6)
    afterwards = {name: value for name, value in criterion.state_dict().items() if name not in LATER_ROWS}
    torch.testing.assert_close(afterwards, dict(saved["state_dict_afterwards"]), rtol=1e-5, atol=1e-8)

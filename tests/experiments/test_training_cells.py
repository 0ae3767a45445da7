import json
import signal
import subprocess
import sys
import time

import pytest

from geco_ext.cli import main
from geco_ext.experiments import constraint_study
from geco_ext.experiments.training_cells import TrainingCell, TrainingCells

TINY = (
    "--data",
    "digits",
    "--size",
    "8",
    "--steps",
    "4",
    "--batch-size",
    "16",
    "--threads",
    "1",
    "--accelerator",
    "cpu",
)
SMALL = ("--model-option", "hidden=8", "--model-option", "channels=2", "--model-option", "latent=2")


def test_cells_are_trained_and_go_on_and_one_that_fails_is_named(tmp_path):
    lines, reports = [], {}
    good = TrainingCell({"model": "nvp", "kappa": "0.1"}, (*TINY, *SMALL, "--constraint", "re=0.1"))
    bad = TrainingCell({"model": "nvp", "kappa": "-1"}, (*TINY, *SMALL, "--constraint", "re=-1"))
    trainings = TrainingCells(tmp_path, jobs=2, report=lines.append)
    failed = trainings.train([bad, good], lambda cell, report: reports.update({cell.name: report}))
    assert failed == [bad.name]
    assert list(reports) == [good.name]
    assert reports[good.name]["steps"] == 4
    assert any(line.startswith(f"{bad.name}: failed: geco: error: constraint 're=-1'") for line in lines)
    assert json.loads((tmp_path / good.name / "results.json").read_text()) == reports[good.name]

    # From its checkpoint: it finds a finished run and has no steps left.
    assert TrainingCells(tmp_path, 1, lines.append).train([good], lambda *_: None) == []
    of_good = [line.split(": ")[1].split(",")[0] for line in lines if line.startswith(f"{good.name}: ")]
    assert of_good == ["starts", "done", "goes on", "done"]


class EndedFromOutside(TrainingCells):
    """Receives SIGTERM when its first training has recorded a step."""

    def _show(self, done, of):
        self.processes = [running.process for running in self.running]
        if self.running[0].steps() != "0":
            signal.raise_signal(signal.SIGTERM)


def test_no_training_outlives_the_process_that_started_it(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell
    try:
        cell = TrainingCell({"model": "nvp"}, (*TINY, *SMALL, "--steps", "100000"))
        trainings = EndedFromOutside(tmp_path, 1, lambda line: None)
        with pytest.raises(SystemExit):
            trainings.train([cell], lambda *_: None)
    finally:
        signal.signal(signal.SIGINT, before)
    assert [process.returncode for process in trainings.processes] == [130]
    assert (tmp_path / cell.name / "checkpoints" / "last.ckpt").is_file()


KILLED = """
import sys
from pathlib import Path
from geco_ext.experiments.training_cells import TrainingCell, TrainingCells
cell = TrainingCell({"model": "nvp"}, tuple(sys.argv[2:]))
TrainingCells(Path(sys.argv[1]), 1, print).train([cell], print)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent was killed")
def test_a_killed_experiment_takes_its_training_along(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path), *TINY, *SMALL, "--steps", "1000000"]
    experiment = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    metrics = tmp_path / "nvp" / "metrics.csv"
    wait_until(lambda: metrics.is_file() and len(metrics.read_text().splitlines()) > 1)
    experiment.kill()
    experiment.wait()
    log = tmp_path / "nvp.log"
    wait_until(lambda: "interrupted" in log.read_text())
    assert (tmp_path / "nvp" / "checkpoints" / "last.ckpt").is_file()


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_is_no_number_of_jobs(tmp_path):
    with pytest.raises(ValueError, match="jobs: got 0, expected at least 1"):
        TrainingCells(tmp_path, 0, print)


def result(name, violation, deviation):
    return {"name": name, "reached": 0.1, "violation": violation, "deviation_percent": deviation, "multiplier": 7.0}


@pytest.mark.parametrize(
    ("results", "skipped", "met"),
    [
        ([result("reconstruction_error", 0.04, 2.0)], 0, "yes"),
        ([result("reconstruction_error", 0.06, 3.0)], 0, "no"),
        ([result("reconstruction_error", -0.2, -10.0)], 0, "yes"),
        ([result("reconstruction_error", 0.05, 2.47), result("patch_ncc", 0.0, 0.0)], 0, "yes"),
        ([result("reconstruction_error", 0.0, 0.0), result("patch_ncc", 0.06, 0.1)], 0, "no"),
        ([result("patch_ncc", -0.1, -1.0)], 1, "no"),
    ],
)
def test_when_a_cell_of_the_study_is_met(results, skipped, met):
    report = {"constraints": results, "skipped_steps": skipped, "rmse": 0.1, "kl": 5.0, "seconds": 1.0}
    assert constraint_study.row(TrainingCell({"model": "nvp"}, ()), report)["met"] == met


def test_the_cells_of_the_study_are_all_constraints_of_both_models(tmp_path):
    options = constraint_study.parsed([])
    cells = constraint_study.cells({"conv": tmp_path / "c.pt", "resnet": tmp_path / "r.pt"}, options)
    assert len({cell.name for cell in cells}) == len(cells) == 14
    assert sum(f"cla=0.9:{tmp_path / 'c.pt'}" in cell.arguments for cell in cells) == 4


def test_an_unknown_experiment_lists_the_known_ones(capsys):
    assert main(["experiment", "nosuch"]) == 2
    assert "unknown experiment 'nosuch'; known are multiplier, constraints, matrix" in capsys.readouterr().err


def test_help_of_an_experiment_is_its_own(capsys):
    with pytest.raises(SystemExit):
        main(["experiment", "matrix", "--help"])
    assert "--quick" in capsys.readouterr().out
    assert main(["experiment", "--help"]) == 0
    assert "multiplier, constraints, matrix" in capsys.readouterr().out

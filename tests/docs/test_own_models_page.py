"""The page on models, constraints and objectives of one's own: its files, as they stand there, serve the commands."""

import csv
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import geco_ext

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own_models.md"
OPTIONS = ["--size", "8", "--steps", "3", "--threads", "1", "--accelerator", "cpu", "--quiet"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Every block of code as the file that its first line names, in the current folder."""
    pytest.importorskip("lightning")
    threads = torch.get_num_threads()
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL):
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    yield {path.name for path in tmp_path.iterdir()}
    torch.set_num_threads(threads)


def run(*arguments):
    from geco_ext.cli import main

    assert main(list(arguments)) == 0


def test_every_block_of_code_is_a_file(files):
    assert len(files) == PAGE.read_text().count("```python") == 4


def test_the_model_serves_every_command(files, capsys):
    run("train", *OPTIONS, "--model", "mine.py:VAE(latent=3)", "--out", "run")
    assert capsys.readouterr().err == ""
    run("sample", "run", "--trust", "-n", "4", "--out", "samples.png")
    run("reconstruct", "run", "--trust", "-n", "4", "--out", "reconstructions.png")
    run("interpolate", "run", "0", "1", "--trust", "--out", "way.png")
    run("encode", "run", "--trust", "--split", "test", "--out", "latents.npz")
    with np.load("latents.npz") as saved:
        assert saved["latents"].shape == (len(saved["labels"]), 3)
    assert all(Path(f"{name}.png").is_file() for name in ("samples", "reconstructions", "way"))


def test_the_constraint_and_the_objectives_train(files, capsys):
    constraints = ["--constraint", "re=0.1", "--constraint", "cons.py:Brightness=0.02"]
    run("train", *OPTIONS, *constraints, "--objective", "objectives.py:FreeNats(nats=4.0)", "--out", "constrained")
    run("train", *OPTIONS, "--objective", "objectives.py:SlowlyMoreKL(steps=500)", "--out", "annealed")
    assert capsys.readouterr().err == ""
    constrained, annealed = (geco_ext.load_run(name, trust=True).criterion for name in ("constrained", "annealed"))
    assert constrained.names == ("reconstruction_error", "brightness")
    x = torch.zeros(2, 1, 8, 8)
    little, free, more = (constrained(x, x, torch.full((2,), kl)) for kl in (1.0, 4.0, 5.0))
    assert little == free < more
    assert float(annealed.beta_range[1]) == 1


def test_squares_with_a_scale_are_weighed_as_the_reconstruction_error(files):
    names = {}
    exec(Path("cons.py").read_text(), names)
    x, x_hat = torch.rand(2, 4, 1, 8, 8)
    own, built_in = (geco_ext.GECOLoss.natural(c) for c in (names["Squares"](0.1), geco_ext.ReconstructionError(0.1)))
    for _ in range(5):
        torch.testing.assert_close(own(x_hat, x, torch.ones(4)), built_in(x_hat, x, torch.ones(4)))
    torch.testing.assert_close(own.multiplier, built_in.multiplier)
    torch.testing.assert_close(own.violation, built_in.violation)


def test_the_lightning_module_logs_both(files, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    names = {}
    code = Path("training.py").read_text()
    shorter = code.replace("L.Trainer(", "L.Trainer(accelerator='cpu', logger=CSVLogger('.'), log_every_n_steps=5, ")
    exec("from lightning.pytorch.loggers import CSVLogger\n" + shorter, names)
    criterion, logged = names["trainer"].lightning_module.criterion, names["trainer"].callback_metrics
    assert int(criterion.steps) == 5 * 15
    validation = {name for name in logged if name.startswith("validation/")}
    assert validation == {f"validation/{name}" for name in ("constraint/reconstruction_error", "kl", "loss")}
    assert logged["validation/constraint/reconstruction_error"] != logged["constraint/reconstruction_error"]
    with next(tmp_path.rglob("metrics.csv")).open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["validation/loss"]]
    assert float(rows[-1]["validation/constraint/reconstruction_error"]) < float(
        rows[0]["validation/constraint/reconstruction_error"]
    )

import csv
import json

import lightning as L
import pytest
import torch
import yaml
from lightning.pytorch.plugins import MixedPrecision
from tiny_runs import TINY_OPTIONS, one_line, tiny_settings
from torch import nn
from torch.utils.data import DataLoader

import geco_ext
from geco_ext.cli import main
from geco_ext.training import loggers
from geco_ext.training.session import resume, start
from geco_ext.training.trainer import quiet_trainer
from geco_ext.training.training_step import ConstrainedTraining, has_scaler

PICTURES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("model", ["nvp", "convdraw"])
def test_a_run_in_mixed_precision_has_weights_of_full_precision(tmp_path, model):
    seen = []
    options = {"hidden": 16} if model == "nvp" else {"hidden": 4, "steps": 2}
    settings = tiny_settings(precision="bf16-mixed", steps=2, model=model, model_options=options)
    session = start(settings, tmp_path / "run")
    model = session.module.model
    model.register_forward_hook(lambda *_: seen.append(torch.get_autocast_dtype("cpu") if model.training else None))
    session.train()
    assert seen[:2] == [torch.bfloat16] * 2
    assert {parameter.dtype for parameter in session.module.model.parameters()} == {torch.float32}
    assert int(session.module.skipped_steps) == 0


def test_half_precision_is_refused_where_it_cannot_be_had(tmp_path, capsys):
    path = tmp_path / "run"
    assert main(["train", *TINY_OPTIONS, "--precision", "16-mixed", "--out", str(path)]) == 2
    assert "precision 16-mixed needs a GPU, got cpu; bf16-mixed and 32-true run there" in one_line(capsys.readouterr())
    assert main(["train", *TINY_OPTIONS, "--precision", "8", "--out", str(path)]) == 2
    assert "precision must be one of 32-true, bf16-mixed, 16-mixed, got '8'" in one_line(capsys.readouterr())
    assert not path.exists()


class Sometimes(nn.Module):
    """A linear model whose KL is infinite in some steps, which its gradient does not show."""

    def __init__(self, bad):
        super().__init__()
        self.weight = nn.Parameter(torch.full((8,), 0.5))
        self.bad, self.steps = bad, 0

    def forward(self, x):
        self.steps += 1
        x_hat = x * self.weight.to(x.dtype)
        kl = self.weight.square().sum() + (torch.inf if self.steps in self.bad else 0.0)
        return x_hat, kl.expand(len(x))


class Weights(L.Callback):
    def __init__(self):
        self.before, self.moved = None, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.before = module.model.weight.detach().clone()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.moved.append(not torch.equal(self.before, module.model.weight))


def fit(module, steps, **arguments):
    weights = Weights()
    data = DataLoader([{"x": x, "label": 0} for x in PICTURES] * steps, batch_size=4)
    trainer = quiet_trainer("cpu", 1, max_steps=steps, callbacks=[weights], logger=False, **arguments)
    trainer.progress_bar_callback.disable()
    trainer.fit(module, data)
    return weights.moved, trainer


def training(bad):
    criterion = geco_ext.GECOLoss([geco_ext.ReconstructionError(0.1)], multiplier_init=1.0, multiplier_bounds=(0.1, 9))
    return ConstrainedTraining(Sometimes(bad), criterion, learning_rate=0.01, steps=100, takes_context=False)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_step_that_is_not_finite_is_left_out_in_every_precision(precision):
    module = training(bad=(2, 4))
    moved, _ = fit(module, 5, precision=precision)
    assert moved == [True, False, True, False, True]
    assert int(module.skipped_steps) == 2


def test_a_step_that_is_not_finite_is_left_out_under_a_scaler():
    """That of 16-mixed looks at gradients alone, which an infinite KL does not show."""
    module = training(bad=(2, 4))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    moved, trainer = fit(module, 5, plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)], precision=None)
    assert has_scaler(trainer)
    assert moved == [True, False, True, False, True]
    assert int(module.skipped_steps) == 2
    assert scaler.get_scale() == 2.0
    assert module.model.weight.isfinite().all()


def test_hyperparameters_are_written_for_the_logger(tmp_path):
    start(tiny_settings(steps=1, objective="elbo"), tmp_path / "run").train()
    resume(tmp_path / "run", steps=2).train()
    written = yaml.safe_load((tmp_path / "run" / "tensorboard" / "hparams.yaml").read_text())
    assert written["steps"] == 2
    assert written["model_options"]["latent"] == 2
    assert written["objective"] == "elbo"


def test_metrics_of_another_logger(tmp_path):
    path = tmp_path / "run"
    assert main(["train", *TINY_OPTIONS, "--steps", "1", "--logger", "csv", "--out", str(path), "--quiet"]) == 0
    assert not (path / "tensorboard").exists()
    (file,) = path.glob("csv/*/metrics.csv")
    with file.open() as lines:
        assert any(float(record["rmse"] or 0) > 0 for record in csv.DictReader(lines))
    again = ["train", "--resume", str(path), "--steps", "2", "--quiet"]
    assert main([*again, "--logger", "none"]) == 0
    assert len(list(path.glob("csv/*"))) == 1
    assert json.loads((path / "config.json").read_text())["settings"]["logger"] == "none"


def test_a_logger_that_is_not_installed_is_named_with_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loggers, "is_installed", lambda package: False)
    for name in ("wandb", "tensorboard"):
        assert main(["train", *TINY_OPTIONS, "--logger", name, "--out", str(tmp_path / "run")]) == 2
        assert f"logger '{name}' needs the package {name}, which is not installed: pip install {name}" in one_line(
            capsys.readouterr()
        )
    assert not (tmp_path / "run").exists()

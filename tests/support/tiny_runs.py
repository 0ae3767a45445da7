"""Runs small enough for tests: 8x8 digits, three batches an epoch, a model of a few thousand weights."""

import signal

import lightning as L
import pytest
import torch

from geco_ext.training.run_folder import RunFolder, read_history
from geco_ext.training.settings import TrainingSettings
from geco_ext.training.trainer import TrainingInterrupted

TINY_MODEL = {"latent": 2, "flows": 1, "hidden": 16, "channels": 4}
BATCHES_PER_EPOCH = 3
TINY_OPTIONS = [
    *("--size", "8", "--batch-size", "500", "--threads", "1", "--accelerator", "cpu"),
    *(part for name, value in TINY_MODEL.items() for part in ("--model-option", f"{name}={value}")),
]


def tiny_settings(**changes):
    settings = {
        "model_options": TINY_MODEL,
        "size": 8,
        "batch_size": 500,
        "steps": 12,
        "checkpoint_every": 5,
        "threads": 1,
        "accelerator": "cpu",
    }
    return TrainingSettings(**{**settings, **changes})


class PressControlC(L.Callback):
    """Sends the process the signal while a given step is under way."""

    def __init__(self, step):
        self.step = step

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if trainer.global_step + 1 == self.step:
            signal.raise_signal(signal.SIGINT)


def train_until(session, step):
    session.trainer.callbacks.append(PressControlC(step))
    with pytest.raises(TrainingInterrupted):
        session.train()


def final(path):
    checkpoint = RunFolder(path).read_checkpoint(RunFolder(path).last_checkpoint)
    return {name: checkpoint[name] for name in ("state_dict", "optimizer_states", "lr_schedulers", "random_state")}


def assert_same_end(path, straight):
    torch.testing.assert_close(final(path), final(straight), rtol=0, atol=0)
    assert read_history(path / "metrics.csv") == read_history(straight / "metrics.csv")


def one_line(captured):
    """The single line on stderr of a command that failed."""
    assert captured.out == ""
    assert captured.err.startswith("geco: error: ")
    assert captured.err.count("\n") == 1
    return captured.err

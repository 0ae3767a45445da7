"""Runs small enough for tests: 8x8 digits, three batches an epoch, a model of a few thousand weights."""

from geco_ext.training.settings import TrainingSettings

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

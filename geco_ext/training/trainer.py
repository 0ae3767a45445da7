"""Lightning's trainer as all trainings here use it."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException

from geco_ext.training.stop_on_interrupt import StopOnInterrupt

# Advice of Lightning that does not apply: the data are in memory, and constraints keep their networks in eval mode.
# LeafSpec: Lightning and PyTorch among themselves.
INAPPLICABLE_ADVICE = (
    ".*does not have many workers.*",
    ".*in eval mode at the start of training.*",
    ".*LeafSpec.* is deprecated.*",
)


class TrainingInterrupted(Exception):  # noqa: N818 - an interruption is no error
    """Training was interrupted; a run's last checkpoint can be resumed."""


def quiet_trainer(accelerator: str, devices: int, **arguments: Any) -> L.Trainer:
    """A trainer without what Lightning adds of its own: no summary, no validation, no checkpoints, no messages.

    Raises:
        ValueError: an accelerator or a number of devices that cannot be used here.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        return L.Trainer(
            accelerator=accelerator,
            devices=devices,
            max_epochs=-1,
            enable_checkpointing=False,
            enable_model_summary=False,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # BatchOrder gives each rank its share
            **arguments,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise ValueError(f"accelerator {accelerator!r} with {devices} devices cannot be used here: {error}") from error


def fit(
    trainer: L.Trainer,
    module: L.LightningModule,
    data: L.LightningDataModule,
    interrupt: StopOnInterrupt,
    checkpoint: Path | None = None,
) -> None:
    """Train to the trainer's last step, from a checkpoint if there is one.

    Raises:
        TrainingInterrupted: on Ctrl-C, after the step in which it came.
    """
    try:
        with warnings.catch_warnings():
            for message in INAPPLICABLE_ADVICE:
                warnings.filterwarnings("ignore", message)
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    except (KeyboardInterrupt, SystemExit) as stopped:  # Lightning turns the second Ctrl-C into SystemExit
        raise TrainingInterrupted from stopped
    if interrupt.interrupted:
        raise TrainingInterrupted

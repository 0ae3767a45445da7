"""Lightning's trainer as all trainings here use it, and the processes and threads it runs in."""

from __future__ import annotations

import logging
import os
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy

from geco_ext.training.callbacks import StopOnInterrupt
from geco_ext.training.settings import torchrun_processes

# Advice of Lightning that does not apply: the data are in memory, and constraints keep their networks in eval mode.
# LeafSpec: Lightning and PyTorch among themselves.
INAPPLICABLE_ADVICE = (
    ".*does not have many workers.*",
    ".*in eval mode at the start of training.*",
    ".*LeafSpec.* is deprecated.*",
)

ONE_THREAD_ELEMENTS = 2**16
"""Image elements of a batch up to which one thread is used: on 128 digits of 16x16 two threads are no faster than one,
and many times slower where another process holds a core, because threads that wait for each other spin."""

STUCK_AFTER = timedelta(minutes=5)
"""How long a process waits for the others: beyond any step and any reading of data, short of a night lost."""


class TrainingInterrupted(Exception):  # noqa: N818 - an interruption is no error
    """Training was interrupted; a run's last checkpoint can be resumed."""


class ProcessLost(Exception):  # noqa: N818 - named for what happened
    """Another process of the same training has ended, or has not answered for `STUCK_AFTER`."""


def quiet_trainer(accelerator: str, devices: int, precision: str = "32-true", **arguments: Any) -> L.Trainer:
    """A trainer without what Lightning adds of its own: no summary, no validation, no checkpoints, no messages.

    Raises:
        ValueError: an accelerator, a number of devices or a precision that cannot be used here.
    """
    for name in ("lightning.pytorch", "lightning.fabric.utilities.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    launched = torchrun_processes()
    if launched not in (None, devices):
        raise ValueError(f"devices must be the {launched} processes torchrun has started, got {devices}")
    if devices > 1:
        # Lightning would share out all cores, whatever number of threads was asked for.
        os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*precision='16-mixed'.*")  # what cannot be had is refused below
            trainer = L.Trainer(
                accelerator=accelerator,
                devices=devices,
                precision=precision,  # type: ignore[arg-type]  # one of settings.PRECISIONS
                strategy=DDPStrategy(timeout=STUCK_AFTER) if devices > 1 else "auto",
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
    if precision == "16-mixed" and trainer.strategy.root_device.type != "cuda":
        raise ValueError(
            f"precision 16-mixed needs a GPU, got {trainer.strategy.root_device.type}; bf16-mixed and 32-true run there"
        )
    return trainer


def fit(
    trainer: L.Trainer,
    module: L.LightningModule,
    data: L.LightningDataModule,
    interrupt: StopOnInterrupt,
    checkpoint: Path | None = None,
) -> None:
    """Train to the trainer's last step, from a checkpoint if there is one.

    Raises:
        TrainingInterrupted: on Ctrl-C, after the step in which it came; with several devices a few steps later.
        ProcessLost: another process has ended or does not answer.
    """
    try:
        with warnings.catch_warnings():
            for message in INAPPLICABLE_ADVICE:
                warnings.filterwarnings("ignore", message)
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    except (KeyboardInterrupt, SystemExit) as stopped:  # Lightning turns the second Ctrl-C into SystemExit
        raise TrainingInterrupted from stopped
    except RuntimeError as error:
        if not _is_of_communication(error):
            raise
        raise ProcessLost(f"another process of this training is lost ({' '.join(str(error).split())})") from error
    if interrupt.interrupted:
        raise TrainingInterrupted


def _is_of_communication(error: RuntimeError) -> bool:
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)  # gloo has no type of its own


def use_threads(threads: int | None, elements: int, processes: int = 1) -> None:
    """Set the CPU threads of this process; where none are asked for, one for batches of few image elements.

    Args:
        threads: what was asked for.
        elements: image elements of the batch of one process.
        processes: how many share the cores; where threads are not asked for, each has its part of them.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    elif elements <= ONE_THREAD_ELEMENTS:
        torch.set_num_threads(1)
    elif processes > 1:
        torch.set_num_threads(min(torch.get_num_threads(), max(1, len(os.sched_getaffinity(0)) // processes)))

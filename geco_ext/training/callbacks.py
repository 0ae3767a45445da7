"""What happens between the steps of a training: metrics, checkpoints, Ctrl-C."""

from __future__ import annotations

import shutil
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any, cast

import lightning as L
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from geco_ext.files import replaced_when_written
from geco_ext.training.run_folder import MetricsHistory, RunFolder
from geco_ext.training.training_step import ConstrainedTraining, is_recorded

KEPT = 2
"""Periodic checkpoints that stay beside ``last.ckpt``: something to fall back on without filling the disk."""


class RecordMetrics(L.Callback):
    """Writes what a step observed to ``metrics.csv`` and the logger, every few steps and in one read of the device."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.latest: dict[str, float] = {}
        self._history: MetricsHistory | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the history at the step training starts from."""
        if trainer.is_global_zero:
            self._history = MetricsHistory(self.folder.metrics_file, trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record this step if it is one of those recorded."""
        if self._history is None or not is_recorded(trainer.global_step):
            return
        module = cast(ConstrainedTraining, pl_module)
        of_criterion = module.criterion.metrics()
        del of_criterion["skipped"]  # those are among the skipped steps
        values = {**module.observed, **of_criterion, "skipped_steps": module.skipped_steps}
        numbers = torch.stack([value.detach().to(torch.float64) for value in values.values()]).tolist()
        self.latest = dict(zip(values, numbers, strict=True))
        self._history.append({"step": trainer.global_step, **self.latest})
        for logger in trainer.loggers:
            logger.log_metrics(self.latest, trainer.global_step)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the history."""
        if self._history is not None:
            self._history.close()
            self._history = None


class SaveCheckpoints(L.Callback):
    """Saves between two steps: every ``every`` steps, at the last one, and wherever training is told to stop.

    ``last.ckpt`` is a file of its own, not a link to the periodic one, so damage to either leaves the other.
    """

    def __init__(self, folder: RunFolder, every: int) -> None:
        self.folder = folder
        self.every = every

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if this step calls for it."""
        step = trainer.global_step
        if step % self.every and step != trainer.max_steps and not trainer.should_stop:
            return
        file = self.folder.checkpoint_at(step)
        trainer.save_checkpoint(file)  # every rank takes part, the first one writes
        if trainer.is_global_zero:
            with replaced_when_written(self.folder.last_checkpoint) as temporary:
                shutil.copyfile(file, temporary)
            for old in self.folder.periodic_checkpoints()[:-KEPT]:
                old.unlink()


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name beside its own and renames it; reads tensors and plain values only.

    Lightning's own writer goes through the system's temporary folder. Where that is another disk, the last step is a
    copy that an interruption leaves half done.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint; an earlier one of that name stays until the new one is complete."""
        with replaced_when_written(Path(path)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint onto the CPU."""
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return checkpoint


class StopOnInterrupt(L.Callback):
    """Turns Ctrl-C into a stop after the current step, where a checkpoint is whole; a second Ctrl-C stops at once.

    It must come before the callback that saves checkpoints, which saves because training is about to stop.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._previous: Any = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen; only the main thread of a process can."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._interrupt)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if asked to; with several ranks all of them stop at the same step."""
        if trainer.world_size == 1:
            trainer.should_stop = trainer.should_stop or self.interrupted
        elif trainer.global_step % 10 == 0:  # the ranks agree by a collective, which is worth avoiding in most steps
            self.interrupted = trainer.strategy.reduce_boolean_decision(self.interrupted, all=False)
            trainer.should_stop = trainer.should_stop or self.interrupted

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Hand the signal back."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

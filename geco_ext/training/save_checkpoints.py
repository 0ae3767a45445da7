from __future__ import annotations

import shutil
from typing import Any

import lightning as L

from geco_ext.files import replaced_when_written
from geco_ext.training.run_folder import RunFolder

KEPT = 2
"""Periodic checkpoints that stay beside ``last.ckpt``: something to fall back on without filling the disk."""


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

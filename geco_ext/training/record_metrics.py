from __future__ import annotations

from typing import Any, cast

import lightning as L
import torch

from geco_ext.training.constrained_training import ConstrainedTraining, is_recorded
from geco_ext.training.metrics_history import MetricsHistory
from geco_ext.training.run_folder import RunFolder


class RecordMetrics(L.Callback):
    """Writes what a step observed to ``metrics.csv`` and TensorBoard, every few steps and in one read of the device."""

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
        values = {**module.observed, **module.criterion.metrics(), "skipped_steps": module.skipped_steps}
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

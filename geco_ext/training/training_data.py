"""The training set as Lightning takes it."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch.utils.data import DataLoader

from geco_ext.data import ImageDataset
from geco_ext.training.batch_order import BatchOrder


class TrainingData(L.LightningDataModule):
    """Whole batches indexed out of memory, in an order that resumes at the trainer's step.

    There are no worker processes: indexing a batch takes microseconds, handing it over from a process takes longer.
    For a GPU it is put into pinned memory, from which it is copied while the GPU computes.
    """

    def __init__(self, dataset: ImageDataset, batch_size: int, seed: int) -> None:
        super().__init__()
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches from the step the trainer stands at; Lightning asks after it has restored a checkpoint."""
        trainer = self.trainer
        assert trainer is not None  # Lightning attaches itself before it asks
        order = BatchOrder(
            len(self.dataset),
            self.batch_size,
            self.seed,
            first_step=trainer.global_step,
            rank=trainer.global_rank,
            ranks=trainer.world_size,
        )
        pin = trainer.strategy.root_device.type == "cuda"
        return DataLoader(self.dataset, sampler=order, batch_size=None, pin_memory=pin)

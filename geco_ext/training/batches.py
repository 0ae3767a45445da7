"""Which examples each step sees, as a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from geco_ext.data import ImageDataset

LARGEST_EPOCH = 2**31


class BatchOrder(Sampler[Tensor]):
    """Endless batches of indices: each epoch a permutation drawn from (seed, epoch), without its last partial batch.

    Nothing is remembered between batches, so training can be taken up at any step, in the middle of an epoch too,
    with exactly the batches it would have seen.

    Args:
        examples: size of the data set.
        batch_size: examples per step, over all ranks together.
        seed: of the permutations.
        first_step: the step to begin with, counted from 0.
        rank: which share of each batch to give.
        ranks: number of shares.

    Raises:
        ValueError: a batch larger than the data set.

    Example:
        >>> straight, resumed = iter(BatchOrder(10, 4, seed=0)), iter(BatchOrder(10, 4, seed=0, first_step=1))
        >>> _ = next(straight)
        >>> bool((next(straight) == next(resumed)).all())
        True
    """

    def __init__(
        self, examples: int, batch_size: int, seed: int, first_step: int = 0, rank: int = 0, ranks: int = 1
    ) -> None:
        if batch_size > examples:
            raise ValueError(f"batch size must be at most the {examples} training examples, got {batch_size}")
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.first_step = first_step
        self.rank = rank
        self.ranks = ranks

    def __iter__(self) -> Iterator[Tensor]:
        batches_per_epoch = self.examples // self.batch_size
        epoch, position = divmod(self.first_step, batches_per_epoch)
        while True:
            permutation = self._permutation(epoch)
            for batch in range(position, batches_per_epoch):
                first = batch * self.batch_size
                yield permutation[first + self.rank : first + self.batch_size : self.ranks]
            epoch, position = epoch + 1, 0

    def _permutation(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * LARGEST_EPOCH + epoch)
        return torch.randperm(self.examples, generator=generator)


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

"""The training of a classifier that is to judge images it was not trained on: reconstructions."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

import geco_ext.data
from geco_ext.data import ImageDataset
from geco_ext.training.batches import BatchOrder, TrainingData
from geco_ext.training.callbacks import StopOnInterrupt
from geco_ext.training.classifier_checkpoint import ClassifierCheckpoint, build_classifier, number_of_classes
from geco_ext.training.evaluation import EVALUATION_BATCH
from geco_ext.training.progress import Progress
from geco_ext.training.settings import ClassifierSettings
from geco_ext.training.trainer import fit, quiet_trainer, use_threads
from geco_ext.training.training_step import is_recorded, with_falling_rate

LABEL_SMOOTHING = 0.05
"""Share of the probability that the target spreads over all classes."""

WEIGHT_DECAY = 0.01
PIXEL_NOISE = 0.1
"""Largest standard deviation of the noise on training images; drawn for each image between 0 and this."""

SHIFT = 1
"""Training images are moved by up to this many pixels each way."""


@dataclass
class ClassifierSession:
    """All parts of a classifier's training, built and checked."""

    settings: ClassifierSettings
    training_set: ImageDataset
    test_set: ImageDataset
    module: ClassifierTraining
    trainer: L.Trainer
    interrupt: StopOnInterrupt
    file: Path

    def train(self) -> ClassifierCheckpoint:
        """Train, measure, write the checkpoint and return what is in it.

        Raises:
            TrainingInterrupted: on Ctrl-C; nothing is written then.
            ValueError: the training failed, the features tell no examples apart.
        """
        settings = self.settings
        data = TrainingData(self.training_set, settings.batch_size, settings.seed)
        torch.manual_seed(settings.seed)
        fit(self.trainer, self.module, data, self.interrupt)
        network = self.module.network.to(self.trainer.strategy.root_device).eval()
        checkpoint = ClassifierCheckpoint(
            model=settings.model,
            options=dict(settings.model_options),
            image_shape=self.training_set.image_shape,
            classes=number_of_classes(self.training_set),
            data=settings.data,
            train_accuracy=accuracy(network, self.training_set),
            test_accuracy=accuracy(network, self.test_set),
            feature_scale=feature_scale(network.features(), self.training_set),  # type: ignore[operator]
            state_dict=network.state_dict(),
        )
        self.file.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write(self.file)
        return checkpoint


def start(settings: ClassifierSettings, file: Path) -> ClassifierSession:
    """A new training whose checkpoint goes to ``file``.

    Raises:
        ValueError: a setting that cannot be used; data without one label an example; a file that is taken or cannot be
            written.
        FileNotFoundError: data that are not there.
    """
    _check_free(file)
    settings = dataclasses.replace(settings, size=settings.size or geco_ext.data.command_size(settings.data))
    training_set, test_set = (
        geco_ext.data.load(settings.data, split, settings.root, settings.size, settings.seed, strict=settings.strict)
        for split in ("train", "test")
    )
    try:
        classes = number_of_classes(training_set)
    except ValueError as error:
        raise ValueError(f"data {settings.data!r} cannot train a classifier: {error}") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = build_classifier(settings.model, training_set.image_shape, classes, settings.model_options)
    BatchOrder(len(training_set), settings.batch_size, settings.seed)  # refuses a batch larger than the data set
    use_threads(settings.threads, settings.batch_size * math.prod(training_set.image_shape))
    module = ClassifierTraining(network, learning_rate=settings.learning_rate, steps=settings.steps)
    interrupt = StopOnInterrupt()
    trainer = quiet_trainer(
        accelerator=settings.accelerator,
        devices=1,
        max_steps=settings.steps,
        callbacks=[interrupt, Progress(module.numbers)],
        logger=False,
    )
    return ClassifierSession(settings, training_set, test_set, module, trainer, interrupt, file)


def _check_free(file: Path) -> None:
    if file.exists():
        raise ValueError(f"{file} exists already; remove it or choose another --out")
    folder = next(folder for folder in file.absolute().parents if folder.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"{file} cannot be written: {folder} is no folder that can be written to")


class ClassifierTraining(L.LightningModule):
    """A classifier trained with AdamW on cross-entropy.

    CLA's gradient is that of a probability p, proportional to p (1 - p): a classifier that is certain of everything
    gives none, and reconstructions at the start of training are what it is most certainly wrong about. Smoothed labels,
    weight decay and noise keep it from certainty, on the data and beside them. On digits of 16x16, VAE+NVP, seed 0,
    CLA 0.9 alone was met with this classifier after 1500 steps of its training (the multiplier left its bound by step
    450), and not within 900 steps with one that had 400 steps on images that were shifted only.

    Args:
        network: images [B, C, H, W] -> logits [B, classes].
        learning_rate: AdamW's, until it falls linearly to 0 over the last fifth of the steps.
        steps: optimiser steps of the whole training.
    """

    def __init__(self, network: nn.Module, *, learning_rate: float, steps: int) -> None:
        super().__init__()
        self.network = network
        self.learning_rate = learning_rate
        self.steps = steps
        self.observed: Tensor | None = None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW and the learning rate's fall."""
        weights = self.network.parameters()
        optimizer = torch.optim.AdamW(weights, lr=self.learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
        return with_falling_rate(optimizer, self.steps)

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        """Cross-entropy of one batch in nats, 0-d."""
        logits = self.network(augmented(batch["x"]))
        loss = F.cross_entropy(logits, batch["label"], label_smoothing=LABEL_SMOOTHING)
        if is_recorded(self.global_step + 1):
            correct = (logits.detach().argmax(1) == batch["label"]).float().mean()
            self.observed = torch.stack([loss.detach(), correct])
        return loss

    def numbers(self) -> dict[str, str]:
        """Loss and accuracy of the last recorded batch."""
        if self.observed is None:
            return {}
        loss, accuracy = self.observed.tolist()
        return {"cross-entropy": f"{loss:.4f}", "accuracy": f"{accuracy:.1%}"}


def augmented(images: Tensor) -> Tensor:
    """Images [B, C, H, W] shifted and with noise, each in its own way."""
    batch, _, height, width = images.shape
    padded = F.pad(images, (SHIFT,) * 4, mode="replicate")
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [B, C, rows, columns, H, W], a view
    row, column = torch.randint(2 * SHIFT + 1, (2, batch), device=images.device)
    shifted = windows[torch.arange(batch, device=images.device), :, row, column]
    deviation = PIXEL_NOISE * torch.rand(batch, 1, 1, 1, device=images.device)
    return shifted + deviation * torch.randn_like(images)


@torch.no_grad()
def accuracy(network: nn.Module, dataset: ImageDataset) -> float:
    """Share of a data set that a network in eval mode classifies correctly."""
    correct = 0
    for images, labels in _batches(dataset):
        correct += int((network(images.to(_device(network))).argmax(1).cpu() == labels).sum())
    return correct / len(dataset)


@torch.no_grad()
def feature_scale(extractor: nn.Module, dataset: ImageDataset) -> float:
    """Standard deviation of features over a data set: the root of the mean variance of their elements.

    Raises:
        ValueError: features that are the same for all examples.
    """
    total, total_square = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for images, _ in _batches(dataset):
        features = extractor(images.to(_device(extractor))).double().cpu()
        total = total + features.sum(0)
        total_square = total_square + features.square().sum(0)
    variance = total_square / len(dataset) - (total / len(dataset)).square()
    scale = float(variance.mean().clamp_min(0).sqrt())
    if not 0 < scale < float("inf"):
        raise ValueError(f"the classifier's features have a standard deviation of {scale:g}: its training failed")
    return scale


def _batches(dataset: ImageDataset) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(dataset.images.split(EVALUATION_BATCH), dataset.labels.split(EVALUATION_BATCH), strict=True)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device

"""The training of a classifier from its settings to its checkpoint."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch

import geco_ext.data
from geco_ext.data import ImageDataset
from geco_ext.training.batch_order import BatchOrder
from geco_ext.training.class_labels import number_of_classes
from geco_ext.training.classifier_checkpoint import ClassifierCheckpoint
from geco_ext.training.classifier_registry import build_classifier
from geco_ext.training.classifier_settings import ClassifierSettings
from geco_ext.training.classifier_training import ClassifierTraining, accuracy, feature_scale
from geco_ext.training.show_progress import ShowProgress
from geco_ext.training.stop_on_interrupt import StopOnInterrupt
from geco_ext.training.threads import use_threads
from geco_ext.training.trainer import fit, quiet_trainer
from geco_ext.training.training_data import TrainingData


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
        geco_ext.data.load(settings.data, split, settings.root, settings.size, settings.seed)
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
        callbacks=[interrupt, ShowProgress(module.numbers)],
        logger=False,
    )
    return ClassifierSession(settings, training_set, test_set, module, trainer, interrupt, file)


def _check_free(file: Path) -> None:
    if file.exists():
        raise ValueError(f"{file} exists already; remove it or choose another --out")
    folder = next(folder for folder in file.absolute().parents if folder.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"{file} cannot be written: {folder} is no folder that can be written to")

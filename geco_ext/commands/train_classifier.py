"""`geco train-classifier`: train a classifier for the constraints CLA and FRE."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from geco_ext.cli import INTERRUPTED_EXIT_CODE
from geco_ext.commands.failure import CommandFailure
from geco_ext.commands.model_options import model_options
from geco_ext.training.classifier_settings import ClassifierSettings

if TYPE_CHECKING:
    from geco_ext.training.classifier_session import ClassifierSession

DEFAULTS = ClassifierSettings()


def train_classifier(
    model: Annotated[str, typer.Option(help="Classifier: conv, resnet.")] = DEFAULTS.model,
    model_option: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads these at run time, on Python 3.10 too
        typer.Option(metavar="NAME=INTEGER", help="An argument of the classifier, such as blocks=5; repeatable."),
    ] = None,
    data: Annotated[str, typer.Option(help="Data set whose examples have one label each.")] = DEFAULTS.data,
    root: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Folder with the files of data sets that are not embedded."),
    ] = None,
    size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Height and width in pixels.", show_default="16 for digits, 64 for celeba, else 32 or the images' own"
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = DEFAULTS.steps,
    batch_size: Annotated[int, typer.Option(help="Examples per step.")] = DEFAULTS.batch_size,
    learning_rate: Annotated[
        float, typer.Option(help="AdamW's; it falls linearly to 0 over the last fifth of the steps.")
    ] = DEFAULTS.learning_rate,
    seed: Annotated[int, typer.Option(help="Of weights, data order and augmentation.")] = DEFAULTS.seed,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Checkpoint file, made new.", show_default="runs/MODEL-DATA.pt"),
    ] = None,
    accelerator: Annotated[str, typer.Option(help="Lightning's accelerator: auto, cpu, gpu...")] = DEFAULTS.accelerator,
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="CPU threads.", show_default="1 for small images, else PyTorch's choice"),
    ] = None,
) -> int:
    """Train a classifier for `geco train --constraint cla=0.9:FILE` or `fre=0.5:FILE`.

    geco train-classifier --model conv --data digits --out runs/conv-digits.pt
    """
    file = out or Path("runs") / (re.sub(r"[^\w.-]+", "-", f"{model}-{data}") + ".pt")
    try:
        settings = ClassifierSettings(
            model=model,
            model_options=model_options(model_option or []),
            data=data,
            root=root,
            size=size,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            accelerator=accelerator,
            threads=threads,
        )

        from geco_ext.training import classifier_session  # Lightning takes seconds to import; a wrong option should not

        session = classifier_session.start(settings, file)
    except (ValueError, FileNotFoundError) as error:
        raise CommandFailure(str(error)) from error
    return _train(session)


def _train(session: ClassifierSession) -> int:
    """Train, report, and return the exit code."""
    from geco_ext.training.trainer import TrainingInterrupted

    try:
        checkpoint = session.train()
    except ValueError as error:
        raise CommandFailure(str(error)) from error
    except (TrainingInterrupted, KeyboardInterrupt):
        print("geco: interrupted; nothing was saved", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    print(
        f"accuracy: train {checkpoint.train_accuracy:.1%} of {len(session.training_set)}, "
        f"test {checkpoint.test_accuracy:.1%} of {len(session.test_set)}"
    )
    print(f"{checkpoint.classes} classes, images of shape {checkpoint.image_shape}; saved in {session.file}")
    return 0

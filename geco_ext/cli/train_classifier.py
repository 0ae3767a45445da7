"""`geco train-classifier`: train a classifier for the constraints CLA and FRE."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from geco_ext.cli.failure import CommandFailure, CommandInterrupted
from geco_ext.cli.options import Given, options_of
from geco_ext.training.settings import ClassifierSettings

if TYPE_CHECKING:
    from geco_ext.training.classifier import ClassifierSession


@options_of(ClassifierSettings)
def train_classifier(
    given: Given,
    out: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads it at run time, on Python 3.10 too
        typer.Option(help="Checkpoint file, made new.", show_default="runs/MODEL-DATA.pt"),
    ] = None,
) -> int:
    """Train a classifier for `geco train --constraint cla=0.9:FILE` or `fre=0.5:FILE`.

    geco train-classifier --model conv --data digits --out runs/conv-digits.pt
    """
    try:
        settings = ClassifierSettings(**given)

        from geco_ext.training import classifier  # Lightning takes seconds to import; a wrong option should not

        usual = Path("runs") / (re.sub(r"[^\w.-]+", "-", f"{settings.model}-{settings.data}") + ".pt")
        session = classifier.start(settings, out or usual)
    except (ValueError, FileNotFoundError) as error:
        raise CommandFailure(str(error)) from error
    except KeyboardInterrupt as stopped:
        raise CommandInterrupted("nothing was saved") from stopped
    return _train(session)


def _train(session: ClassifierSession) -> int:
    """Train, report, and return the exit code."""
    from geco_ext.training.trainer import TrainingInterrupted

    try:
        checkpoint = session.train()
    except ValueError as error:
        raise CommandFailure(str(error)) from error
    except (TrainingInterrupted, KeyboardInterrupt) as stopped:
        raise CommandInterrupted("nothing was saved") from stopped
    print(
        f"accuracy: train {checkpoint.train_accuracy:.1%} of {len(session.training_set)}, "
        f"test {checkpoint.test_accuracy:.1%} of {len(session.test_set)}"
    )
    print(f"{checkpoint.classes} classes, images of shape {checkpoint.image_shape}; saved in {session.file}")
    return 0

"""`geco train`: train a model under constraints."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from geco_ext.cli import INTERRUPTED_EXIT_CODE
from geco_ext.commands.failure import CommandFailure
from geco_ext.commands.model_options import model_options
from geco_ext.training.settings import TrainingSettings, spoken
from geco_ext.training.torchrun import torchrun_processes

if TYPE_CHECKING:
    from geco_ext.training.run_folder import RunFolder
    from geco_ext.training.session import Session

DEFAULTS = TrainingSettings()
CHANGEABLE = ("steps", "checkpoint_every", "accelerator", "devices", "threads")
"""Settings that may be given with --resume: they do not change what the steps already done would have been."""


# A default of None means "not given": with --resume the run's own settings hold, otherwise those of TrainingSettings.
Text = Optional[str]  # noqa: UP045 - typer reads these at run time, on Python 3.10 too
Integer = Optional[int]  # noqa: UP045
Number = Optional[float]  # noqa: UP045
Texts = Optional[list[str]]  # noqa: UP045
Folder = Optional[Path]  # noqa: UP045


def train(
    model: Annotated[
        Text,
        typer.Option(
            help="Model: nvp, convdraw (conditional where the data have a context), unconditional-convdraw.",
            show_default=DEFAULTS.model,
        ),
    ] = None,
    model_option: Annotated[
        Texts, typer.Option(metavar="NAME=INTEGER", help="An argument of the model, such as latent=64; repeatable.")
    ] = None,
    data: Annotated[
        Text,
        typer.Option(
            help="Data set: digits, patches, mnist, cifar10, celeba, a variant of digits or mnist (color-digits), "
            "folder:PATH, npy:PATH.",
            show_default=DEFAULTS.data,
        ),
    ] = None,
    root: Annotated[Text, typer.Option(help="Folder with the files of data sets that are not embedded.")] = None,
    size: Annotated[
        Integer,
        typer.Option(
            help="Height and width in pixels.", show_default="16 for digits, 64 for celeba, else 32 or the images' own"
        ),
    ] = None,
    objective: Annotated[
        Text,
        typer.Option(
            help="geco, or one to compare it with: paper:LR (Algorithm 1 to the letter), elbo[:SIGMA], "
            "beta:BETA[:SIGMA], anneal[:FIRST:LAST[:SIGMA]]; SIGMA is a number or learned.",
            show_default=DEFAULTS.objective,
        ),
    ] = None,
    constraint: Annotated[
        Texts,
        typer.Option(
            help="Constraint, repeatable: re=KAPPA, pncc=KAPPA[:PATCH], local=KAPPA[:PATCH], "
            "cla=KAPPA:CHECKPOINT, fre=KAPPA:CHECKPOINT (of geco train-classifier), module:Class[=KAPPA], "
            "file.py:Class[=KAPPA].",
            show_default=DEFAULTS.constraints[0],
        ),
    ] = None,
    steps: Annotated[Integer, typer.Option(help="Optimiser steps.", show_default=str(DEFAULTS.steps))] = None,
    batch_size: Annotated[
        Integer,
        typer.Option(help="Examples per step, over all devices together.", show_default=str(DEFAULTS.batch_size)),
    ] = None,
    learning_rate: Annotated[
        Number,
        typer.Option(
            help="Adam's; it falls linearly to 0 over the last fifth of the steps.",
            show_default=str(DEFAULTS.learning_rate),
        ),
    ] = None,
    seed: Annotated[
        Integer, typer.Option(help="Of weights, data order and posterior samples.", show_default=str(DEFAULTS.seed))
    ] = None,
    out: Annotated[Folder, typer.Option(help="Run folder, made new.", show_default="runs/MODEL-DATA")] = None,
    resume: Annotated[
        Folder, typer.Option(help="Run folder (or one of its checkpoints) to continue, bit for bit on the CPU.")
    ] = None,
    checkpoint_every: Annotated[
        Integer, typer.Option(help="Steps between checkpoints.", show_default=str(DEFAULTS.checkpoint_every))
    ] = None,
    accelerator: Annotated[
        Text, typer.Option(help="Lightning's accelerator: auto, cpu, gpu...", show_default=DEFAULTS.accelerator)
    ] = None,
    devices: Annotated[
        Integer, typer.Option(help="Devices, a process each.", show_default="1, with torchrun its processes")
    ] = None,
    threads: Annotated[
        Integer, typer.Option(help="CPU threads.", show_default="1 for small images, else PyTorch's choice")
    ] = None,
) -> int:
    """Train a model under constraints; results and pictures go to the run folder.

    geco train --model nvp --data digits --constraint re=0.1 --out runs/demo
    """
    given = {
        "model": model,
        "model_options": model_option,
        "data": data,
        "root": root,
        "size": size,
        "objective": objective,
        "constraints": constraint,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "checkpoint_every": checkpoint_every,
        "accelerator": accelerator,
        "devices": devices,
        "threads": threads,
    }
    try:
        session = _session({name: value for name, value in given.items() if value is not None}, out, resume)
    except (ValueError, FileNotFoundError) as error:
        raise CommandFailure(str(error)) from error
    return _train(session)


def _session(given: dict[str, Any], out: Path | None, resume: Path | None) -> Session:
    """Everything the run needs, checked; whatever is wrong with the input raises here."""
    if "model_options" in given:
        given["model_options"] = model_options(given["model_options"])
    started = torchrun_processes()
    if started is not None:
        given.setdefault("devices", started)
    if "constraints" in given:
        given["constraints"] = tuple(given["constraints"])
    if resume is not None:
        fixed = [spoken(name) for name in given if name not in CHANGEABLE] + (["out"] if out is not None else [])
        if fixed:
            raise ValueError(f"a resumed run keeps its settings; with --resume leave out: {', '.join(fixed)}")
        settings = None
    else:
        settings = TrainingSettings(**given)

    from geco_ext.training import session  # Lightning takes seconds to import; a wrong option should not

    _find_own_modules()
    if settings is None:
        assert resume is not None
        return session.resume(resume, **given)
    return session.start(settings, out or Path("runs") / re.sub(r"[^\w.-]+", "-", f"{settings.model}-{settings.data}"))


def _train(session: Session) -> int:
    """Train, report, and return the exit code."""
    from geco_ext.training.finish import finish
    from geco_ext.training.trainer import ProcessLost, TrainingInterrupted

    folder, settings = session.folder, session.configuration.settings
    try:
        seconds = session.train()
        if not session.trainer.is_global_zero:
            return 0
        report = finish(folder, session.module, session.dataset, settings, seconds)
    except ProcessLost as lost:
        raise CommandFailure(f"{lost}; {_what_to_do(folder)}") from lost
    except (TrainingInterrupted, KeyboardInterrupt):
        if not session.trainer.is_global_zero:
            return 0  # a failure would have the first process killed, which may still be writing
        print(f"geco: interrupted; {_what_to_do(folder)}", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    print("\n".join([report.table(), "", *report.remarks()]))
    print(f"{settings.steps} steps, {seconds:.0f} s; results and pictures in {folder.path}")
    return 0


def _what_to_do(folder: RunFolder) -> str:
    has_checkpoint = folder.last_checkpoint.is_file()
    return f"continue with: geco train --resume {folder.path}" if has_checkpoint else "nothing was saved yet"


def _find_own_modules() -> None:
    """Let `--constraint module:Class` find modules in the current folder, as `python -m` would."""
    if "" not in sys.path:
        sys.path.insert(0, "")

"""`geco train`: train a model under constraints."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from geco_ext.cli.failure import FAILURE_EXIT_CODE, CommandFailure, CommandInterrupted
from geco_ext.cli.options import Given, options_of
from geco_ext.cli.output import AsJson, Quiet, print_json, say
from geco_ext.cli.own_modules import find_modules_here
from geco_ext.training.config import OUT, read_config
from geco_ext.training.own_code import own_call
from geco_ext.training.settings import TrainingSettings, check_model_name, in_words, torchrun_processes

if TYPE_CHECKING:
    from geco_ext.training.run_folder import RunFolder
    from geco_ext.training.session import Session

CHANGEABLE = ("steps", "checkpoint_every", "patience", "accelerator", "devices", "threads", "logger", "root")
"""Settings that may be given with --resume: they do not change what the steps already done would have been."""

GROUPS = {
    "Data": ("data", "root", "size", "strict", "validation"),
    "Model": ("model", "model_options"),
    "Constraints": ("constraints", "kappa_schedule", "objective", "multiplier_init", "multiplier_bounds"),
    "Training": ("steps", "batch_size", "learning_rate", "seed", "patience", "checkpoint_every"),
    "Machine": ("accelerator", "devices", "threads", "precision"),
    "Run and output": ("out", "resume", "config", "logger", "quiet", "as_json"),
}
"""The options as the help shows them."""

Folder = Optional[Path]  # noqa: UP045 - typer reads it at run time, on Python 3.10 too


@options_of(TrainingSettings, GROUPS)
def train(
    given: Given,
    out: Annotated[Folder, typer.Option(help="Run folder, made new.", show_default="runs/MODEL-DATA")] = None,
    resume: Annotated[
        Folder,
        typer.Option(
            help="Run folder (or one of its checkpoints) to continue, bit for bit on the CPU. --root then says where "
            "its data are now."
        ),
    ] = None,
    config: Annotated[
        Folder,
        typer.Option(metavar="FILE", help="YAML file of options by name, such as a run's config.yaml; given ones win."),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Train a model under constraints; results and pictures go to the run folder.

    geco train --data folder:PATH --constraint re=0.1 --out runs/mine

    geco train --resume runs/mine
    """
    try:
        if config is not None:
            given, out = _with_config(given, out, config)
        session = _session(given, out, resume, quiet)
    except (ValueError, FileNotFoundError) as error:
        raise CommandFailure(str(error)) from error
    except KeyboardInterrupt as stopped:
        unchanged = f"the run is as it was; continue with: geco train --resume {resume}"
        raise CommandInterrupted("nothing was saved, no run was begun" if resume is None else unchanged) from stopped
    if not quiet:
        say(session.about_data())
        if session.is_finished:
            say(_is_finished(session))
    return _train(session, quiet, as_json)


def _with_config(given: Given, out: Path | None, file: Path) -> tuple[Given, Path | None]:
    """The settings, and the folder, of a file; those that are given as options take their place."""
    given = {**read_config(file, TrainingSettings), **given}
    folder = given.pop(OUT, None)
    return given, out if out is not None or folder is None else Path(folder)


def _session(given: Given, out: Path | None, resume: Path | None, quiet: bool) -> Session:
    """Everything the run needs, checked; whatever is wrong with the input raises here."""
    started = torchrun_processes()
    if started is not None:
        given.setdefault("devices", started)
    if resume is not None:
        fixed = [in_words(name) for name in given if name not in CHANGEABLE] + (["out"] if out is not None else [])
        if fixed:
            raise ValueError(f"a resumed run keeps its settings; with --resume leave out: {', '.join(fixed)}")
    settings = TrainingSettings(**given) if resume is None else None
    if settings is not None:
        check_model_name(settings.model)

    from geco_ext.training import session  # Lightning takes seconds to import; a wrong option should not

    find_modules_here()
    if settings is None:
        assert resume is not None
        return session.resume(resume, quiet, **given)
    return session.start(settings, out or _usual_folder(settings), quiet)


def _usual_folder(settings: TrainingSettings) -> Path:
    own = own_call(settings.model)
    return Path("runs") / re.sub(r"[^\w.-]+", "-", f"{own.name if own else settings.model}-{settings.data}")


def _train(session: Session, quiet: bool, as_json: bool) -> int:
    """Train, report, and return the exit code."""
    from geco_ext.training.non_finite import NonFiniteTraining
    from geco_ext.training.report import write_report
    from geco_ext.training.trainer import ProcessLost, TrainingInterrupted

    folder, settings = session.folder, session.configuration.settings
    try:
        seconds = session.train()
        if not session.trainer.is_global_zero:
            return 0
        if not quiet:
            say(_is_measured(session))
        report = write_report(
            folder,
            session.module,
            session.dataset,
            settings,
            seconds,
            session.held_out,
            session.trainer.global_step,
        )
    except ProcessLost as lost:
        raise CommandFailure(f"{lost}; {_what_to_do(folder)}") from lost
    except NonFiniteTraining as ended:
        if not session.trainer.is_global_zero:
            return FAILURE_EXIT_CODE
        raise CommandFailure(str(ended)) from ended
    except (TrainingInterrupted, KeyboardInterrupt) as stopped:
        if not session.trainer.is_global_zero:
            return 0  # a failure would have the first process killed, which may still be writing
        raise CommandInterrupted(_what_to_do(folder)) from stopped
    if as_json:
        print_json({"run": str(folder.path), **asdict(report)})
    if quiet or as_json:
        return 0
    print("\n".join([report.table(), "", *report.remarks()]))
    print(f"{report.steps} steps, {seconds:.0f} s; results and pictures in {folder.path}")
    return 0


def _is_measured(session: Session) -> str:
    """For the time after the last step, which may be long."""
    held_out = "" if session.held_out is None else f" and {len(session.held_out)} held-out"
    return f"measuring {len(session.dataset)} training{held_out} examples, and drawing pictures"


def _what_to_do(folder: RunFolder) -> str:
    has_checkpoint = folder.last_checkpoint.is_file()
    resume = f"geco train --resume {folder.path}"
    return f"continue with: {resume}" if has_checkpoint else f"no step was saved; begin again with: {resume}"


def _is_finished(session: Session) -> str:
    folder, steps = session.folder.path, session.configuration.settings.steps
    return (
        f"the run in {folder} is finished, its {steps} steps are done; to train on: "
        f"geco train --resume {folder} --steps {2 * steps}"
    )

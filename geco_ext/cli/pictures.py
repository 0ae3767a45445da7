"""`geco sample` and `geco reconstruct`: pictures of what a trained run makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from geco_ext.cli.failure import CommandFailure
from geco_ext.cli.own_modules import find_modules_here
from geco_ext.training.settings import MAX_SEED

if TYPE_CHECKING:
    from geco_ext.training.run import Run

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of geco train, or one of its checkpoints.")]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of what is drawn at random.")]
Trust = Annotated[bool, typer.Option("--trust", help="Import the code the run names: a model of one's own.")]
Split = Annotated[str, typer.Option(help="Part of the data set: train, test.")]
OptionalFile = Optional[Path]  # noqa: UP045 - typer reads it at run time, on Python 3.10 too
OptionalNumber = Optional[int]  # noqa: UP045


def sample(
    run: RunPath,
    n: Annotated[OptionalNumber, typer.Option("-n", min=1, help="Number of samples.", show_default="64")] = None,
    seed: Seed = 0,
    split: Annotated[str, typer.Option(help="Where the contexts of a conditional model are from: train, test.")] = (
        "train"
    ),
    out: Annotated[OptionalFile, typer.Option(help="PNG file.", show_default="RUN/samples-SEED.png")] = None,
    trust: Trust = False,
) -> int:
    """Draw samples of a trained model; of a conditional one, below the contexts they were drawn for.

    geco sample runs/demo -n 64 --out samples.png
    """
    from geco_ext.training.pictures import draw_run_samples

    return _draw(draw_run_samples, run, n, seed, split, out, f"samples-{seed}.png", trust)


def reconstruct(
    run: RunPath,
    n: Annotated[
        OptionalNumber, typer.Option("-n", min=1, help="Number of examples.", show_default="64, or all")
    ] = None,
    seed: Seed = 0,
    split: Split = "train",
    out: Annotated[
        OptionalFile, typer.Option(help="PNG file.", show_default="RUN/reconstructions-SPLIT-SEED.png")
    ] = None,
    trust: Trust = False,
) -> int:
    """Draw the first examples of a run's data set above their reconstructions, and how these grow if the model says so.

    geco reconstruct runs/demo --split test --out reconstructions.png
    """
    from geco_ext.training.pictures import draw_run_reconstructions

    return _draw(draw_run_reconstructions, run, n, seed, split, out, f"reconstructions-{split}-{seed}.png", trust)


def _draw(
    draw: Callable[[Run, int | None, int, str, Path], None],
    path: Path,
    n: int | None,
    seed: int,
    split: str,
    out: Path | None,
    usual_name: str,
    trust: bool,
) -> int:
    from geco_ext.data.request import Request
    from geco_ext.training.run import load_run
    from geco_ext.training.run_folder import RunFolder

    file = out or RunFolder.holding(path)[0].path / usual_name
    try:
        if file.suffix.lower() != ".png":
            raise ValueError(f"out must be a file name ending in .png, got {file}")
        Request(split)  # type: ignore[arg-type]  # refuses what is no split, also where no data are needed
        find_modules_here()
        trained = load_run(path, trust)
        make_folder(file)
        draw(trained, n, seed, split, file)
    except (ValueError, OSError) as error:
        raise CommandFailure(str(error)) from error
    print(file)
    return 0


def make_folder(file: Path) -> None:
    """Make the folder of an output; ValueError where it cannot be."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"out {file} cannot be written: {error.strerror or error}") from error

"""`geco encode` and `geco interpolate`: a trained run's latents as numbers, and as a picture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from geco_ext.cli.failure import CommandFailure, CommandInterrupted
from geco_ext.cli.output import AsJson, Quiet, print_json
from geco_ext.cli.own_modules import find_modules_here
from geco_ext.cli.pictures import RunPath, Seed, Split, Trust, make_folder

if TYPE_CHECKING:
    from torch import Tensor

    from geco_ext.data import ImageDataset

OptionalPath = Optional[Path]  # noqa: UP045 - typer reads these at run time, on Python 3.10 too
OptionalText = Optional[str]  # noqa: UP045
Index = Annotated[int, typer.Argument(min=0, help="Index of an example of the run's data set, from 0.")]


def encode(
    run: RunPath,
    split: Annotated[
        str, typer.Option(help="Part of the data set: train, test, or all: first train, then test.")
    ] = "train",
    data: Annotated[
        OptionalText, typer.Option(help="Other data, as in geco train --data.", show_default="the run's")
    ] = None,
    root: Annotated[OptionalPath, typer.Option(help="Folder with the files of data that are not embedded.")] = None,
    samples: Annotated[
        int,
        typer.Option(min=0, help="0: one code an image, without randomness. n: the mean of n posterior samples."),
    ] = 0,
    seed: Seed = 0,
    out: Annotated[OptionalPath, typer.Option(help=".npz file.", show_default="RUN/latents-SPLIT.npz")] = None,
    trust: Trust = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Write the latents of a data set to a file that numpy.load reads, with labels, indices and names of files.

    geco encode runs/demo --split all --out latents.npz
    """
    import torch

    from geco_ext.training.latents import embedded, method_for, parts_for, write_latents
    from geco_ext.training.run import load_run
    from geco_ext.training.run_folder import RunFolder

    file = out or RunFolder.holding(run)[0].path / f"latents-{split}.npz"
    try:
        _check_file(file, ".npz")
        find_modules_here()
        trained = load_run(run, trust)
        method_for("encode", trained)  # refused before data are looked for
        datasets = parts_for(trained, split, data, root)
        make_folder(file)
        trained.model.to("cuda" if torch.cuda.is_available() else "cpu")
        parts = {part: (embedded(trained, each, samples, seed, quiet), each) for part, each in datasets.items()}
        write_latents(parts, file, with_split=split == "all")
    except (ValueError, OSError) as error:
        raise CommandFailure(str(error)) from error
    except KeyboardInterrupt as stopped:
        raise CommandInterrupted("nothing was written") from stopped
    if as_json:
        print_json({"run": str(run), "file": str(file), "split": split, "latents": _shape(parts.values())})
    elif not quiet:
        print(file)
    return 0


def _shape(parts: Iterable[tuple[Tensor, ImageDataset]]) -> list[int]:
    """Of all latents together, [N, D]."""
    latents = [each for each, _ in parts]
    return [sum(map(len, latents)), latents[0].shape[1]]


def interpolate(
    run: RunPath,
    a: Index,
    b: Index,
    steps: Annotated[int, typer.Option(min=2, help="Images on the way, both ends included.")] = 9,
    split: Split = "train",
    out: Annotated[OptionalPath, typer.Option(help="PNG file.", show_default="RUN/interpolation-SPLIT-A-B.png")] = None,
    trust: Trust = False,
) -> int:
    """Draw the way between two examples of a run's data set: both, and images decoded from codes between theirs.

    geco interpolate runs/demo 0 1 --steps 9 --out interpolation.png
    """
    from geco_ext.training.latents import draw_interpolation
    from geco_ext.training.run import load_run
    from geco_ext.training.run_folder import RunFolder

    file = out or RunFolder.holding(run)[0].path / f"interpolation-{split}-{a}-{b}.png"
    try:
        _check_file(file, ".png")
        find_modules_here()
        trained = load_run(run, trust)
        make_folder(file)
        draw_interpolation(trained, a, b, steps, split, file)
    except (ValueError, OSError) as error:
        raise CommandFailure(str(error)) from error
    print(file)
    return 0


def _check_file(file: Path, suffix: str) -> None:
    if file.suffix.lower() != suffix:
        raise ValueError(f"out must be a file name ending in {suffix}, got {file}")
    if file.is_dir():
        raise ValueError(f"out must be a file name, got the folder {file}")

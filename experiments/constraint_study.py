"""Every kind of constraint, met with the library's defaults: both models, on handwritten digits.

Reconstruction error, whitened patches, local statistics, features of a ResNet, and the accuracy of a classifier, alone
and beside each other. The two classifiers are trained first, by `geco train-classifier`. A constraint is met when its
average over the training set is at most 5% of its scale above 0.

Run it with ``geco experiment constraints``. Finished cells are kept in a CSV file and skipped next time.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from geco_ext.experiments.results_file import ResultsFile, markdown_table
from geco_ext.experiments.training_cells import PROGRAM, Report, TrainingCell, TrainingCells, print_line
from geco_ext.training.met import MET_WITHIN, is_met

MODELS = ("nvp", "convdraw")
CONSTRAINTS = {
    "RE 0.1": ("re=0.1",),
    "pNCC 0.9, patch 4": ("pncc=0.9:4",),
    "local statistics 0.06, patch 4": ("local=0.06:4",),
    "FRE 0.5": ("fre=0.5:{resnet}",),
    "RE 0.1 + pNCC 0.9, patch 4": ("re=0.1", "pncc=0.9:4"),
    "RE 0.15 + CLA 0.9": ("re=0.15", "cla=0.9:{conv}"),
    "CLA 0.9": ("cla=0.9:{conv}",),
}
CLASSIFIER_STEPS = {"conv": 1000, "resnet": 300}
KEY = ("model", "constraints", "steps")

INTRODUCTION = """# Every kind of constraint with the defaults

Made by `geco experiment constraints`: `geco train` with its defaults but for the constraints, on handwritten digits of
16x16 pixels, training set, eval mode, one posterior sample an example. C/s: the constraint over its scale, 0 where the
tolerance is used up exactly; met: at most {tolerance} for every constraint. FRE: kappa in standard deviations of the
features of the first 8 layers of a ResNet-20 trained on the digits. CLA: the mean probability a convolutional
classifier gives the true class. Seconds: of the last process of a run, from where it was resumed if it was."""


def cells(classifiers: dict[str, Path], options: argparse.Namespace) -> list[TrainingCell]:
    """One training for each model and set of constraints."""
    return [
        TrainingCell(
            {"model": model, "constraints": name, "steps": str(options.steps)},
            (
                *("--model", model, "--data", "digits", "--steps", str(options.steps), "--threads", "1"),
                *("--accelerator", "cpu"),
                *(word for text in CONSTRAINTS[name] for word in ("--constraint", text.format(**classifiers))),
            ),
        )
        for name in options.constraints
        for model in options.models
    ]


def row(cell: TrainingCell, report: Report) -> dict[str, str]:
    """A row of the table from the results of a training."""
    results = report["constraints"]
    met = all(is_met(result["violation"]) for result in results) and report["skipped_steps"] == 0
    return {
        **cell.columns,
        "reached": ", ".join(f"{result['reached']:.4f}" for result in results),
        "C/s": ", ".join(f"{result['violation']:+.3f}" for result in results),
        "RMSE": f"{report['rmse']:.4f}",
        "KL": f"{report['kl']:.2f}",
        "multiplier": ", ".join(f"{result['multiplier']:.3g}" for result in results),
        "non-finite steps": str(report["skipped_steps"]),
        "met": "yes" if met else "no",
        "seconds": f"{report['seconds']:.0f}",
    }


def train_classifiers(folder: Path) -> dict[str, Path]:
    """The checkpoints of both classifiers, trained where they are not there yet.

    Raises:
        RuntimeError: `geco train-classifier` failed.
    """
    files = {model: folder / f"{model}.pt" for model in CLASSIFIER_STEPS}
    for model, file in files.items():
        if file.is_file():
            continue
        print_line(f"classifier {model}: starts")
        settings = ("--data", "digits", "--steps", str(CLASSIFIER_STEPS[model]), "--accelerator", "cpu")
        command = [*PROGRAM, "train-classifier", "--model", model, *settings, "--out", str(file)]
        if subprocess.run(command, check=False).returncode:
            raise RuntimeError(f"the classifier {model!r} could not be trained")
    return files


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="geco experiment constraints", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/constraints"), help="folder of tables and runs (default: %(default)s)"
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument(
        "--constraints", nargs="+", default=list(CONSTRAINTS), choices=list(CONSTRAINTS), metavar="CONSTRAINTS",
        help=", ".join(f'"{name}"' for name in CONSTRAINTS),
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=3000, help="training steps of a cell (default: %(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="trainings at a time (default: %(default)s)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the cells that are not finished yet and print the table.

    Returns:
        The exit code: 0, 1 where a training failed, 2 where the output folder holds another study's table, 130 after
        Ctrl-C.
    """
    options = parsed(arguments)
    try:
        results = ResultsFile(options.output / "constraints.csv", key=KEY)
        trainings = TrainingCells(options.output / "runs", options.jobs, print_line)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    def finished(cell: TrainingCell, report: Report) -> None:
        results.add(row(cell, report))
        results.write_markdown(INTRODUCTION.format(tolerance=MET_WITHIN))

    try:
        wanted = cells(train_classifiers(options.output), options)
        failed = trainings.train([cell for cell in wanted if not results.has(cell.columns)], finished)
    except KeyboardInterrupt:
        print(f"\nstopped; finished cells are in {results.path}, the same command goes on", file=sys.stderr)
        return 130
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(markdown_table(results.rows))
    if failed:
        print(f"failed: {', '.join(failed)}; see their logs in {options.output / 'runs'}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""One setting for all: models x data sets x kappa, the constraint on the RMSE met in every cell.

Each cell is `geco train` with its defaults but for model, data, kappa and two thirds of the steps, which is enough
but for a few: those still above kappa are trained anew with all the steps of the default. A cell is met when the RMSE
of the training set ends within 5% of kappa and no step was non-finite. Two other ends are honest, and marked:

- slack: the RMSE is below kappa with a KL under 0.5 nats, so the constraint is met for free;
- unreachable: the RMSE is above kappa, and hardly above that of the same model trained for reconstruction alone,
  which is above kappa too; it is trained for such cells and shown.

Beside them stand four cells with the paper's Algorithm 1 to the letter, at three rates.

Run it with ``geco experiment matrix`` (``--quick``: kappa 0.1 only). Finished cells are kept in a CSV file; a killed
one goes on from its last checkpoint.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from geco_ext.experiments.heat_map import draw_heat_map
from geco_ext.experiments.matrix_outcomes import ALONE, GECO, above, latest, mark_unreachable, row, summary
from geco_ext.experiments.results_file import ResultsFile, markdown_table
from geco_ext.experiments.training_cells import TrainingCell, TrainingCells, print_line
from geco_ext.training.settings import TrainingSettings

KAPPAS = ("0.06", "0.08", "0.1", "0.125", "0.175")
QUICK_KAPPAS = ("0.1",)
WITHOUT_CONTEXT = ("digits", "color-digits", "digits-triplets", "patches")
WITH_CONTEXT = ("digits-sum", "digits-sum-hard", "digits-rotate")
PAPER_RATES = ("0.01", "0.1", "1")
PAPER_CELLS = (
    ("nvp", "digits", "0.1"),
    ("nvp", "digits-triplets", "0.1"),
    ("convdraw", "digits", "0.1"),
    ("nvp", "digits", "0.06"),
)
KEY = ("model", "data", "kappa", "objective", "steps", "seed")
STEPS, MORE_STEPS = 2000, TrainingSettings().steps

INTRODUCTION = """# One setting for all

Made by `geco experiment matrix`: `geco train` with its defaults but for model, data, kappa, and two thirds of the
steps; cells that were still above kappa are trained anew with the default's steps, and both rows shown. Digits of 16x16
pixels, photograph patches of 32x32. RMSE: training set, eval mode, one posterior sample.

- met: the constraint is at most 5% of its scale above 0, an RMSE of 1.025 kappa, and no step was non-finite
- slack: met for free, more than 5% below kappa with a KL under 0.5 nats
- unreachable: within 10% of what the same model reaches when it is trained for reconstruction alone, which is shown and
  above kappa as well
- `paper:LR`: Algorithm 1 of the paper to the letter, beside the matrix
- seconds: of the last process that trained the cell, and with other trainings on the same machine"""


def pairs() -> Iterator[tuple[str, str]]:
    """Models with the data sets they are trained on; convdraw is conditional where the data have a context."""
    for data in (*WITHOUT_CONTEXT, *WITH_CONTEXT):
        yield "nvp", data
        if data in WITH_CONTEXT:
            yield "unconditional-convdraw", data
        yield "convdraw", data


def cell(
    model: str, data: str, kappa: str, objective: str, options: argparse.Namespace, steps: int | None = None
) -> TrainingCell:
    """One training, of ``options.steps`` unless told; without a kappa the model is trained for reconstruction alone."""
    steps = options.steps if steps is None else steps
    columns = {"model": model, "data": data, "kappa": kappa, "objective": objective}
    # A KL that weighs next to nothing: the decimals of float32 would not miss it.
    wanted: tuple[str, ...] = ("--objective", "beta:1e-9") if objective == ALONE else ("--constraint", f"re={kappa}")
    if objective.startswith("paper"):
        wanted += ("--objective", objective)
    return TrainingCell(
        {**columns, "steps": str(steps), "seed": str(options.seed)},
        (
            *("--model", model, "--data", data, "--steps", str(steps), "--seed", str(options.seed)),
            *("--threads", "1", "--accelerator", "cpu", *wanted),
        ),
    )


def cells(options: argparse.Namespace) -> list[TrainingCell]:
    """The matrix, and the paper's rule beside it."""
    kappas = QUICK_KAPPAS if options.quick else KAPPAS
    made = [cell(model, data, kappa, GECO, options) for kappa, (model, data) in product(kappas, pairs())]
    if not options.quick:
        made += [cell(*names, f"paper:{rate}", options) for names, rate in product(PAPER_CELLS, PAPER_RATES)]
    return made


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="geco experiment matrix", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument(
        "--output", type=Path, default=Path("runs/matrix"), help="folder of tables and runs (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="kappa 0.1 only, without the paper's rule")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of a cell (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of every training (default: %(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="trainings at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--more-steps", type=int, default=MORE_STEPS, help="those of a cell still above kappa (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"--steps: got {options.steps}, expected at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the cells that are not finished yet, draw the heat map and print the table.

    Returns:
        The exit code: 0, 1 where a training failed or a cell is not met, 2 where the output folder holds another
        study's table, 130 after Ctrl-C.
    """
    options = parsed(arguments)
    try:
        results = ResultsFile(options.output / "matrix.csv", key=KEY)
        trainings = TrainingCells(options.output / "runs", options.jobs, print_line)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    wanted = cells(options)

    def train(these: list[TrainingCell]) -> list[str]:
        missing = [of for of in these if not results.has(of.columns)]
        return trainings.train(missing, lambda of, report: results.add(row(of, report)))

    try:
        failed = train(wanted)
        names = [] if options.more_steps <= options.steps else above(results.of(wanted))
        again = [cell(*name, GECO, options, options.more_steps) for name in names]
        failed += train(again)
        tried = latest(results.of([*wanted, *again]))
        alone = [
            cell(model, data, "", ALONE, options, max(options.steps, options.more_steps))
            for model, data in sorted({(model, data) for model, data, _ in above(tried)})
        ]
        failed += train(alone)
    except KeyboardInterrupt:
        print(f"\nstopped; finished cells are in {results.path}, the same command goes on", file=sys.stderr)
        return 130
    except ValueError as error:  # the table is of another version; what was trained stays in its run folder
        print(f"error: {error}", file=sys.stderr)
        return 2
    # The file may hold cells of other steps and seeds.
    rows = results.of([*wanted, *again, *alone])
    mark_unreachable(rows)
    line, all_good = summary(wanted, latest(rows))
    results.save()
    results.write_markdown(f"{INTRODUCTION}\n\n**{line}.**", rows)
    draw_heat_map([r for r in latest(rows) if r["objective"] == GECO], options.output / "matrix.png")
    print(markdown_table(rows))
    print(line)
    if failed:
        print(f"failed: {', '.join(failed)}; see their logs in {options.output / 'runs'}", file=sys.stderr)
    return 0 if all_good and not failed else 1


if __name__ == "__main__":
    sys.exit(main())

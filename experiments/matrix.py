"""One setting for all: models x data sets x kappa, the constraint on the RMSE met in every cell.

Each cell is `geco train` with its defaults but for model, data, kappa and two thirds of the steps, which leaves the
multiplier less time. A cell is met when the RMSE of the training set ends within 5% of kappa and no step was
non-finite. Two other ends are honest, and marked:

- slack: the RMSE is below kappa with a KL under 0.5 nats, so the constraint is met for free;
- unreachable: the RMSE is above kappa, and so is that of the same model trained for reconstruction alone, which is
  trained for such cells and shown.

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
from geco_ext.experiments.results_file import ResultsFile, markdown_table
from geco_ext.experiments.training_cells import Report, TrainingCell, TrainingCells, print_line

KAPPAS = ("0.06", "0.08", "0.1", "0.125", "0.175")
QUICK_KAPPAS = ("0.1",)
WITHOUT_CONTEXT = ("digits", "color-digits", "digits-triplets", "patches")
WITH_CONTEXT = ("digits-sum", "digits-sum-hard", "digits-rotate")
PAPER_RATES = ("0.01", "0.1", "1")
PAPER_CELLS = (
    ("nvp", "digits", "0.1"),
    ("nvp", "patches", "0.1"),
    ("convdraw", "digits", "0.1"),
    ("nvp", "digits", "0.06"),
)
ALONE = "reconstruction alone"
KEY = ("model", "data", "kappa", "objective", "steps", "seed")

TOLERANCE = 0.05
SLACK_KL = 0.5

STEPS = 2000

INTRODUCTION = """# One setting for all

Made by `geco experiment matrix`: `geco train` with its defaults but for model, data, kappa and steps (column "steps");
digits of 16x16 pixels, photograph patches of 32x32. RMSE: training set, eval mode, one posterior sample. Met: RMSE within 5% of kappa and no
non-finite step. Slack: below kappa with a KL under 0.5 nats, the constraint is met for free. Unreachable: the same
model trained for reconstruction alone ends above kappa as well. `paper:LR`: Algorithm 1 of the paper to the letter."""


def pairs() -> Iterator[tuple[str, str]]:
    """Models with the data sets they are trained on; convdraw is conditional where the data have a context."""
    for data in (*WITHOUT_CONTEXT, *WITH_CONTEXT):
        yield "nvp", data
        if data in WITH_CONTEXT:
            yield "unconditional-convdraw", data
        yield "convdraw", data


def cell(model: str, data: str, kappa: str, objective: str, options: argparse.Namespace) -> TrainingCell:
    """One training; without a kappa the model is trained for reconstruction alone."""
    columns = {"model": model, "data": data, "kappa": kappa, "objective": objective}
    # A KL that weighs next to nothing: the decimals of float32 would not miss it.
    wanted: tuple[str, ...] = ("--objective", "beta:1e-9") if objective == ALONE else ("--constraint", f"re={kappa}")
    if objective.startswith("paper"):
        wanted += ("--objective", objective)
    return TrainingCell(
        {**columns, "steps": str(options.steps), "seed": str(options.seed)},
        (
            *("--model", model, "--data", data, "--steps", str(options.steps), "--seed", str(options.seed)),
            *("--threads", "1", "--accelerator", "cpu", *wanted),
        ),
    )


def cells(options: argparse.Namespace) -> list[TrainingCell]:
    """The matrix, and the paper's rule beside it."""
    kappas = QUICK_KAPPAS if options.quick else KAPPAS
    made = [cell(model, data, kappa, "geco", options) for kappa, (model, data) in product(kappas, pairs())]
    if not options.quick:
        made += [cell(*names, f"paper:{rate}", options) for names, rate in product(PAPER_CELLS, PAPER_RATES)]
    return made


def row(of: TrainingCell, report: Report) -> dict[str, str]:
    """A row of the table from the results of a training."""
    kappa, rmse, kl = of.columns["kappa"], report["rmse"], report["kl"]
    multiplier = f"{report['constraints'][0]['multiplier']:.3g}" if report["constraints"] else ""
    return {
        **of.columns,
        "RMSE": f"{rmse:.4f}",
        "RMSE / kappa": f"{rmse / float(kappa):.3f}" if kappa else "",
        "KL": f"{kl:.2f}",
        "multiplier": multiplier,
        "non-finite steps": str(report["skipped_steps"]),
        "outcome": outcome(float(kappa), rmse, kl, report["skipped_steps"]) if kappa else "",
        "seconds": f"{report['seconds']:.0f}",
    }


def outcome(kappa: float, rmse: float, kl: float, skipped: int) -> str:
    """How a cell ended, before it is known what the model can reach.

    Example:
        >>> outcome(0.1, 0.102, 7.0, 0), outcome(0.1, 0.08, 0.2, 0), outcome(0.1, 0.12, 30.0, 0)
        ('met', 'slack', 'above')
    """
    if skipped:
        return "non-finite"
    if abs(rmse / kappa - 1) <= TOLERANCE:
        return "met"
    if rmse < kappa:
        return "slack" if kl < SLACK_KL else "below"
    return "above"


def mark_unreachable(rows: list[dict[str, str]]) -> None:
    """Cells above kappa whose model ends above it for reconstruction alone too."""
    reached = {(r["model"], r["data"]): float(r["RMSE"]) for r in rows if r["objective"] == ALONE}
    for r in rows:
        best = reached.get((r["model"], r["data"]))
        if r["outcome"] == "above" and best is not None and best > float(r["kappa"]):
            r["outcome"] = f"unreachable ({best:.4f})"


def summary(rows: list[dict[str, str]]) -> str:
    """One line on the cells of the matrix."""
    ours = [r for r in rows if r["objective"] == "geco"]
    good = [r for r in ours if r["outcome"].partition(" ")[0] in ("met", "slack", "unreachable")]
    bad = [f"{r['model']} {r['data']} {r['kappa']} ({r['outcome']}, {r['RMSE']})" for r in ours if r not in good]
    met = sum(r["outcome"] == "met" for r in ours)
    return f"{met} of {len(ours)} cells met, {len(good) - met} slack or unreachable" + (
        f"; not: {', '.join(bad)}" if bad else ""
    )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="geco experiment matrix", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument(
        "--output", type=Path, default=Path("runs/matrix"), help="folder of tables and runs (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="kappa 0.1 only, without the paper's rule")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of a cell (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="trainings at a time (default: %(default)s)"
    )
    return parser.parse_args(arguments)


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

    def finished(of: TrainingCell, report: Report) -> None:
        results.add(row(of, report))

    def missing(wanted: list[TrainingCell]) -> list[TrainingCell]:
        return [of for of in wanted if not results.has(of.columns)]

    try:
        failed = trainings.train(missing(cells(options)), finished)
        above = {(r["model"], r["data"]) for r in results.rows if r["outcome"] == "above" and r["objective"] == "geco"}
        alone = [cell(model, data, "", ALONE, options) for model, data in sorted(above)]
        failed += trainings.train(missing(alone), finished)
    except KeyboardInterrupt:
        print(f"\nstopped; finished cells are in {results.path}, the same command goes on", file=sys.stderr)
        return 130
    mark_unreachable(results.rows)
    line = summary(results.rows)
    results.write_markdown(f"{INTRODUCTION}\n\n**{line}**")
    draw_heat_map([r for r in results.rows if r["objective"] == "geco"], options.output / "matrix.png")
    print(markdown_table(results.rows))
    print(line)
    if failed:
        print(f"failed: {', '.join(failed)}; see their logs in {options.output / 'runs'}", file=sys.stderr)
    return 1 if failed or "not:" in line else 0


if __name__ == "__main__":
    sys.exit(main())

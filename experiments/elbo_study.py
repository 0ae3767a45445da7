"""What a constraint costs: the KL of GECO beside that of an ELBO at the same error, with its multiplier rules.

For every model, data set and seed, a VAE is trained by the negative ELBO with a learned sigma. The RMSE it ends at
becomes kappa for GECO, trained for as many steps with everything else the same. Where that ends within 3% of the same
error the KL can be compared; what is left of a difference is taken into account by the multiplier, the price of the
error in nats:

    KL' = KL + lambda (RMSE^2 - RMSE_ELBO^2)

A cell of a finalist that ends further off, mostly below its kappa, is trained again, twice at most, with a kappa that
is looser or tighter in proportion. Cells with a tight kappa (0.02, 0.03, 0.04) stand beside those of the same model
trained for reconstruction alone, which shows what it reaches in these steps.

Run it with ``geco experiment elbo``. Each cell is a `geco train`; finished cells are kept in a CSV file, a killed one
goes on from its last checkpoint.
"""

import argparse
import math
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from geco_ext.experiments.matrix_outcomes import ALONE
from geco_ext.experiments.results_file import ResultsFile
from geco_ext.experiments.training_cells import Report, TrainingCell, TrainingCells, print_line

Row = dict[str, str]

ELBO = "elbo"
SETTINGS = {("nvp", "digits"): 1500, ("convdraw", "digits"): 1000, ("nvp", "patches"): 1500}
"""Steps by model and data set; patches are of 16x16 pixels, as the digits are."""

# Names of the rules, and the options of `geco train` for each; {half} is half of the steps.
RULES: dict[str, tuple[str, ...]] = {
    "default": (),
    "natural": ("--objective", "natural"),
    "natural, kappa annealed": ("--objective", "natural", "--kappa-schedule", "{half}"),
    "default, kappa annealed": ("--kappa-schedule", "{half}"),
}
FINALISTS = ("default",)
"""Those that are trained with every seed; the others with the first."""

TIGHT_KAPPAS = ("0.02", "0.03", "0.04")
TIGHT_STEPS = 2400
NEAR = 0.03
MOST_TRIES = 2  # of another kappa, for an error as near as that to the ELBO's
KEY = ("model", "data", "rule", "kappa", "steps", "seed")

INTRODUCTION = """# GECO beside an ELBO at the same error

Made by `geco experiment elbo`: `geco train` with its defaults but for what the columns name, one thread. Kappa is the
RMSE at which the ELBO of the same model, data, steps and seed ended; then, where GECO ended more than 3% off, a
kappa changed in proportion; or a tight one. KL' = KL + lambda (RMSE^2 - RMSE_ELBO^2), nats, lambda the multiplier at
the end, where the errors are that close. RMSE and KL of the training set and of the test split, eval mode, one
posterior sample."""


def cell(model: str, data: str, rule: str, kappa: str, steps: int, seed: int) -> TrainingCell:
    """One training."""
    options: tuple[str, ...]
    if rule == ELBO:
        options = ("--objective", ELBO)
    elif rule == ALONE:
        options = ("--objective", "beta:1e-9")
    else:
        options = ("--constraint", f"re={kappa}", *(word.format(half=steps // 2) for word in RULES[rule]))
    return TrainingCell(
        {"model": model, "data": data, "rule": rule, "kappa": kappa, "steps": str(steps), "seed": str(seed)},
        (
            *("--model", model, "--data", data, "--size", "16", "--steps", str(steps), "--seed", str(seed)),
            *("--threads", "1", "--accelerator", "cpu", *options),
        ),
    )


def row(of: TrainingCell, report: Report) -> Row:
    """A row of the table from the results of a training; what compares it with the ELBO is filled in afterwards."""
    constraints = report["constraints"]
    held_out = report["held_out"]
    return {
        **of.columns,
        "RMSE": f"{report['rmse']:.4f}",
        "KL": f"{report['kl']:.2f}",
        "test RMSE": f"{held_out['rmse']:.4f}",
        "test KL": f"{held_out['kl']:.2f}",
        "multiplier": f"{constraints[0]['multiplier']:.4g}" if constraints else "",
        "RMSE / kappa": f"{report['rmse'] / float(of.columns['kappa']):.3f}" if of.columns["kappa"] else "",
        "RMSE / ELBO": "",
        "KL' / ELBO": "",
        "non-finite steps": str(report["skipped_steps"]),
    }


def compare(rows: Sequence[Row]) -> None:
    """Fill in how the rows of GECO compare with the ELBO of the same cell."""
    elbos = {_place(r): r for r in rows if r["rule"] == ELBO}
    for r in rows:
        elbo = elbos.get(_place(r))
        if r["rule"] in (ELBO, ALONE) or elbo is None:
            continue
        error, of_elbo = float(r["RMSE"]), float(elbo["RMSE"])
        r["RMSE / ELBO"] = f"{error / of_elbo:.3f}"
        if abs(error / of_elbo - 1) <= NEAR:
            price = float(r["multiplier"]) * (error**2 - of_elbo**2)
            r["KL' / ELBO"] = f"{(float(r['KL']) + price) / float(elbo['KL']):.3f}"


def _place(r: Row) -> tuple[str, ...]:
    return r["model"], r["data"], r["steps"], r["seed"]


def nearer(rows: Sequence[Row]) -> list[TrainingCell]:
    """Cells of finalists that ended too far from their ELBO to be compared, with a kappa changed in proportion.

    Of what has been trained for the same seed the nearest counts.
    """
    nearest: dict[tuple[str, ...], Row] = {}
    for r in sorted(rows, key=lambda r: -abs(float(r["RMSE / ELBO"] or math.inf) - 1)):
        nearest[(*_place(r), r["rule"])] = r
    return [
        cell(
            r["model"],
            r["data"],
            r["rule"],
            f"{float(r['kappa']) / float(r['RMSE / ELBO']):.4f}",
            int(r["steps"]),
            int(r["seed"]),
        )
        for r in nearest.values()
        if r["rule"] in FINALISTS and r["RMSE / ELBO"] and not r["KL' / ELBO"]
    ]


def summary(rows: Sequence[Row]) -> str:
    """One line for each rule, model and data set."""
    ratios: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for r in rows:
        if r["KL' / ELBO"]:
            ratios[r["rule"], r["model"], r["data"]].append(float(r["KL' / ELBO"]))
    return "\n".join(
        f"- {rule}, {model} on {data}: KL' {sum(of) / len(of):.3f} of the ELBO's in the mean of {len(of)} "
        f"seed{'s' if len(of) > 1 else ''}, {max(of):.3f} at most"
        for (rule, model, data), of in ratios.items()
    )


def tight(rows: Sequence[Row]) -> str:
    """One line for each tight kappa: whether it was met, and what reconstruction alone reaches."""
    alone = {(r["model"], r["data"]): r for r in rows if r["rule"] == ALONE}
    return "\n".join(
        f"- {r['model']} on {r['data']}, kappa {r['kappa']}: RMSE {r['RMSE']}, "
        f"{'met' if float(r['RMSE']) <= (1 + NEAR) * float(r['kappa']) else 'not met'} within {NEAR:.0%}; "
        f"reconstruction alone {alone[r['model'], r['data']]['RMSE']}"
        for r in rows
        if r["kappa"] in TIGHT_KAPPAS and int(r["steps"]) == TIGHT_STEPS and (r["model"], r["data"]) in alone
    )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="geco experiment elbo", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument(
        "--output", type=Path, default=Path("runs/elbo"), help="folder of tables and runs (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many of each finalist (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="instead of those of each model and data set (for a try)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="trainings at a time (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.seeds < 1 or (options.steps is not None and options.steps < 1):
        parser.error("--seeds, --steps: expected at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the cells that are not finished yet, and print what they show.

    Returns:
        The exit code: 0, 1 where a training failed, 2 where the output folder holds another study's table, 130 after
        Ctrl-C.
    """
    options = parsed(arguments)
    try:
        results = ResultsFile(options.output / "elbo.csv", key=KEY)
        trainings = TrainingCells(options.output / "runs", options.jobs, print_line)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    def train(these: list[TrainingCell]) -> list[str]:
        missing = [of for of in these if not results.has(of.columns)]
        return trainings.train(missing, lambda of, report: results.add(row(of, report)))

    def steps_of(usual: int) -> int:
        return options.steps or usual

    elbos = [
        cell(model, data, ELBO, "", steps_of(steps), seed)
        for seed, ((model, data), steps) in product(range(options.seeds), SETTINGS.items())
    ]
    tights = [cell("nvp", "digits", "default", kappa, steps_of(TIGHT_STEPS), 0) for kappa in TIGHT_KAPPAS]
    tights.append(cell("nvp", "digits", ALONE, "", steps_of(TIGHT_STEPS), 0))
    try:
        failed = train(elbos)
        ended = results.of(elbos)
        wanted = [
            cell(r["model"], r["data"], rule, r["RMSE"], int(r["steps"]), int(r["seed"]))
            for rule, r in product(RULES, ended)
            if (rule in FINALISTS or r["seed"] == "0") and math.isfinite(float(r["RMSE"]))
        ]
        failed += train(wanted)
        again: list[TrainingCell] = []
        for _ in range(MOST_TRIES):
            compared = results.of([*elbos, *wanted, *again])
            compare(compared)
            again += nearer(compared)
            failed += train(again)
        failed += train(tights)
    except KeyboardInterrupt:
        print(f"\nstopped; finished cells are in {results.path}, the same command goes on", file=sys.stderr)
        return 130
    rows = results.of([*elbos, *wanted, *again, *tights])
    compare(rows)
    results.save()
    said = f"{summary(rows)}\n{tight(rows)}"
    results.write_markdown(f"{INTRODUCTION}\n\n{said}", rows)
    print(said)
    if failed:
        print(f"failed: {', '.join(failed)}; see their logs in {options.output / 'runs'}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

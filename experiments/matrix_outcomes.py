"""How the cells of the matrix ended: rows of its table, and a line on all of them."""

import math
from collections.abc import Iterable, Sequence

from geco_ext.experiments.training_cells import Report, TrainingCell
from geco_ext.training.met import SLACK_KL, is_met

GECO = "geco"
ALONE = "reconstruction alone"
"""The objective of trainings that show what a model can reach."""

UNDERCUT = 0.05
"""How far below kappa the RMSE of a cell may be that is not slack and has not paid for more than was asked."""

NEAR_ITS_BEST = 0.1
"""How far from the RMSE of reconstruction alone a cell that could do no better may be."""

Row = dict[str, str]


def row(of: TrainingCell, report: Report) -> Row:
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
    if skipped or not math.isfinite(rmse):
        return "non-finite"
    if not is_met(_violation(rmse, kappa)):
        return "above"
    if rmse >= kappa * (1 - UNDERCUT):
        return "met"
    return "slack" if kl < SLACK_KL else "below"


def _violation(rmse: float, kappa: float) -> float:
    """C/s of the reconstruction error."""
    return (rmse / kappa) ** 2 - 1


def latest(rows: Sequence[Row]) -> list[Row]:
    """Of each cell the row with the most steps."""
    longest: dict[tuple[str, ...], Row] = {}
    for r in sorted(rows, key=lambda r: int(r["steps"])):
        longest[r["model"], r["data"], r["kappa"], r["objective"]] = r
    return [r for r in rows if longest[r["model"], r["data"], r["kappa"], r["objective"]] is r]


def above(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Model, data and kappa of the cells of GECO that ended above their kappa, reachable or not."""
    return [(r["model"], r["data"], r["kappa"]) for r in rows if r["objective"] == GECO and _is_above(r)]


def _is_above(of: Row) -> bool:
    return of["outcome"] == "above" or of["outcome"].startswith("unreachable")


def mark_unreachable(rows: Sequence[Row]) -> None:
    """Mark the cells of GECO whose model cannot reach kappa, among rows of the same seed.

    Those are above kappa, as near to what the model reaches by reconstruction alone in as many steps as
    `NEAR_ITS_BEST`, and that is not enough to meet it.
    """
    alone = {
        (r["model"], r["data"], r["steps"]): r for r in rows if r["objective"] == ALONE and r["non-finite steps"] == "0"
    }
    for r in rows:
        if r["objective"] != GECO or not _is_above(r):
            continue
        best = alone.get((r["model"], r["data"], r["steps"]))
        is_best = best is not None and _is_the_best(r, float(best["RMSE"]))
        r["outcome"] = f"unreachable ({best['RMSE']})" if best is not None and is_best else "above"


def _is_the_best(of: Row, best: float) -> bool:
    is_out_of_reach = not is_met(_violation(best, float(of["kappa"])))
    return is_out_of_reach and abs(float(of["RMSE"]) / best - 1) <= NEAR_ITS_BEST


def summary(wanted: Iterable[TrainingCell], rows: Sequence[Row]) -> tuple[str, bool]:
    """One line on the wanted cells of GECO, and whether all of them are met, slack or unreachable."""
    found = {(r["model"], r["data"], r["kappa"]): r for r in rows if r["objective"] == GECO}
    ended, bad = [], []
    for columns in (of.columns for of in wanted if of.columns["objective"] == GECO):
        r = found.get((columns["model"], columns["data"], columns["kappa"]))
        ended.append("" if r is None else r["outcome"].partition(" ")[0])
        if ended[-1] not in ("met", "slack", "unreachable"):
            said = "not trained" if r is None else f"{r['outcome']}, {r['RMSE']}"
            bad.append(f"{columns['model']} {columns['data']} {columns['kappa']} ({said})")
    met = ended.count("met")
    free = f", {ended.count('slack')} slack, {ended.count('unreachable')} unreachable"
    return f"{met} of {len(ended)} cells met{free}" + (f"; not: {', '.join(bad)}" if bad else ""), not bad

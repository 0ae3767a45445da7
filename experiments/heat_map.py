"""RMSE / kappa of every cell of the matrix as colours."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt


def draw_heat_map(rows: Sequence[dict[str, str]], file: Path) -> None:
    """One line for each model and data set, one column for each kappa; white is RMSE = kappa, colours end at 15%.

    Args:
        rows: with the columns model, data, kappa, ``RMSE / kappa`` and outcome.
        file: the PNG; without rows none is drawn.
    """
    if not rows:
        return
    lines = sorted({(row["data"], row["model"]) for row in rows})
    kappas = sorted({row["kappa"] for row in rows}, key=float)
    ratios = {(row["data"], row["model"], row["kappa"]): row for row in rows}
    figure, axes = plt.subplots(figsize=(4.5 + 0.9 * len(kappas), 1.5 + 0.3 * len(lines)), layout="constrained")
    nothing = float("nan")
    cells = [(*line, kappa) for line in lines for kappa in kappas]
    values = [float(ratios[cell]["RMSE / kappa"]) if cell in ratios else nothing for cell in cells]
    grid = [values[first : first + len(kappas)] for first in range(0, len(values), len(kappas))]
    image = axes.imshow(grid, cmap="RdBu_r", vmin=0.85, vmax=1.15, aspect="auto")
    axes.set_xticks(range(len(kappas)), kappas)
    axes.set_yticks(range(len(lines)), [f"{data}, {model}" for data, model in lines])
    axes.set_xlabel("kappa asked")
    for y, line in enumerate(lines):
        for x, kappa in enumerate(kappas):
            cell = ratios.get((*line, kappa))
            if cell is not None:
                mark = {"met": "", "slack": " s", "unreachable": " u"}.get(cell["outcome"].partition(" ")[0], " !")
                ink = "white" if abs(float(cell["RMSE / kappa"]) - 1) > 0.1 else "black"
                axes.text(x, y, cell["RMSE / kappa"] + mark, ha="center", va="center", fontsize=8, color=ink)
    figure.colorbar(image, label="RMSE / kappa (s: slack, u: unreachable, !: not met)")
    figure.savefig(file, dpi=120)
    plt.close(figure)

"""Times over the floor against the images' size, both logarithmic."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from results import Result, Row

NAMES = ("RE", "RE + pNCC 8")
FAMILIES = {
    "geco_ext": "geco_ext",
    "triton": "Triton",
    "compile": "torch.compile",
    "eager": "eager",
    "item": "with .item()",
}


def plot(result: Result, path: Path) -> None:
    """One panel for each constraint vector; nothing where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "geco_ext"  # the same file from the same result
    from matplotlib import pyplot

    threads = max(row.threads for row in result.rows)
    figure, panels = pyplot.subplots(1, len(NAMES), figsize=(10, 4), sharey=True)
    for name, panel in zip(NAMES, panels, strict=True):
        for family, label in FAMILIES.items():
            points = curve(result.rows, name, threads, family)
            if points:
                panel.loglog(*zip(*points, strict=True), marker="o", label=label)
        panel.axhline(1, color="black", linewidth=0.8)
        panel.set_title(f"{name}, float32")
        panel.set_xlabel("elements of an image tensor")
    panels[0].set_ylabel("time / traffic floor")
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def curve(rows: Iterable[Row], name: str, threads: int, family: str) -> list[tuple[int, float]]:
    """(elements, time over the floor) of the rows "name, shape" in float32, by size."""
    found = [
        (row.elements, row.takes(family, unit="floor"))
        for row in rows
        if row.threads == threads and row.label.rpartition(", ")[0] == name
    ]
    return sorted((elements, ratio) for elements, ratio in found if ratio is not None)

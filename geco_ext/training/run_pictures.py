"""What `geco sample` and `geco reconstruct` draw, from a trained run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

import geco_ext.data
from geco_ext.runs import Run
from geco_ext.training.evaluation import drawn_from
from geco_ext.training.pictures import draw_stacked

GROWTH_ROWS = 8
"""Steps of a growing reconstruction that are shown, at most: evenly chosen, the last among them."""


def draw_run_samples(run: Run, n: int, seed: int, split: str, file: Path) -> None:
    """Samples in rows; of a conditional model, below the contexts of the data set's first examples they were drawn for.

    Raises:
        ValueError: fewer examples in the data set than contexts needed; a picture too large to be drawn.
    """
    context = [_examples(run, n, split)["context"]] if _is_conditional(run) else []
    with torch.no_grad(), drawn_from(seed, torch.device("cpu")):
        samples = cast(Callable[..., Tensor], run.model.sample)(n, *context)
    draw_stacked([*context, samples], file)


def draw_run_reconstructions(run: Run, n: int, seed: int, split: str, file: Path) -> None:
    """The data set's first examples in rows, below each what the model makes of it at one posterior sample.

    A model with a method ``progress(x, context=None)`` [T, B, C, H, W] has several rows below: how the reconstruction
    grows over its steps, the last row being the reconstruction. Contexts of a conditional model stand above the data.

    Raises:
        ValueError: fewer examples in the data set; a picture too large to be drawn.
    """
    examples = _examples(run, n, split)
    context = [examples["context"]] if _is_conditional(run) else []
    method = "progress" if hasattr(run.model, "progress") else "reconstruct"
    with torch.no_grad(), drawn_from(seed, torch.device("cpu")):
        drawn = cast(Callable[..., Tensor], getattr(run.model, method))(examples["x"], *context)
    rows = _evenly_chosen(drawn) if method == "progress" else [drawn]
    draw_stacked([*context, examples["x"], *rows], file)


def _is_conditional(run: Run) -> bool:
    """Whether the run's model takes a context: on data without one the same kind of model does not."""
    return getattr(run.model, "context_shape", None) is not None


def _examples(run: Run, n: int, split: str) -> dict[str, Tensor]:
    config = run.config
    dataset = geco_ext.data.load(config.data, split, config.root, config.size, config.seed)
    if n > len(dataset):
        raise ValueError(f"n must be at most the {len(dataset)} examples of {config.data!r} ({split}), got {n}")
    return dataset[:n]


def _evenly_chosen(steps: Tensor) -> list[Tensor]:
    count = min(len(steps), GROWTH_ROWS)
    return [steps[round((index + 1) * len(steps) / count) - 1] for index in range(count)]

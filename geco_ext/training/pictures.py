"""The pictures of a run: trajectory, reconstructions, samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

import geco_ext.data
from geco_ext.files import replaced_when_written
from geco_ext.training.evaluation import fixed_seed
from geco_ext.training.models import as_output
from geco_ext.training.run import Run
from geco_ext.training.run_folder import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROWTH_ROWS = 8
"""Steps of a growing reconstruction that are shown, at most: evenly chosen, the last among them."""


COLUMNS = 16
PIXELS_PER_INCH = 100
LARGEST_SIDE = 2**16 - 1
"""Pixels a side that matplotlib can draw."""
SMALLEST_TILE = 48
"""Pixels a side: smaller images are enlarged by a whole factor so that they can be seen."""


def draw_trajectory(history: History, tolerances: Mapping[str, float], file: Path) -> None:
    """RMSE, KL and multipliers against the step; ``tolerances`` (name to kappa) are drawn on the RMSE.

    An objective without constraints shows sigma and beta in the place of the multipliers.
    """
    from matplotlib.figure import Figure

    steps = history["step"]
    constraints = {name: values for name, values in history.items() if name.startswith("moving_average/")}
    others = {name: values for name, values in constraints.items() if name.split("/", 1)[1] not in tolerances}
    figure = Figure(figsize=(8, 9 if others else 7), layout="constrained")
    axes = list(figure.subplots(4 if others else 3, 1, sharex=True))

    axes[0].plot(steps, history["rmse"], linewidth=1)
    for name, kappa in tolerances.items():
        axes[0].axhline(kappa, color="black", linestyle="--", linewidth=1, label=f"kappa = {kappa:g} ({name})")
    if tolerances:
        axes[0].legend()
    axes[0].set(ylabel="RMSE of the batch", yscale="log")
    axes[1].plot(steps, history["kl"], linewidth=1)
    axes[1].set(ylabel="KL of the batch (nats)")
    multipliers = {name: values for name, values in history.items() if name.startswith("multiplier/")}
    weights = multipliers or {name: history[name] for name in ("sigma", "beta")}
    _draw_by_name(axes[2], steps, weights)
    axes[2].set(ylabel="multiplier" if multipliers else "weights", yscale="log")
    if others:
        _draw_by_name(axes[3], steps, others)
        axes[3].axhline(0, color="black", linestyle="--", linewidth=1)
        axes[3].set(ylabel="constraint (moving average)")
    for each in axes:
        each.grid(alpha=0.3)
    axes[-1].set(xlabel="step")
    _save(figure, file)


def draw_stacked(layers: Sequence[Tensor], file: Path) -> None:
    """Rows of the first layer [N, C, H, W], each with its rows of the others, such as reconstructions, below.

    Layers may differ in channels; narrower images stand at the left of their columns.

    Raises:
        ValueError: a picture too large to be drawn.
    """
    split = [torch.split(layer, COLUMNS) for layer in layers]
    _draw_rows([row for rows in zip(*split, strict=True) for row in rows], file)


def _draw_by_name(axes: Axes, steps: Sequence[float], values: Mapping[str, Sequence[float]]) -> None:
    for name, series in values.items():
        axes.plot(steps, series, linewidth=1, label=name.split("/", 1)[-1])
    axes.legend()


def _draw_rows(rows: Sequence[Tensor], file: Path) -> None:
    from matplotlib.figure import Figure

    enlarge = max(1, math.ceil(SMALLEST_TILE / rows[0].shape[-1]))
    tiles = [_tile_shape(row, enlarge) for row in rows]
    column = max(width for _, width in tiles)
    height, width = sum(height for height, _ in tiles), column * max(len(row) for row in rows)
    if max(height, width) > LARGEST_SIDE:
        raise ValueError(f"the picture would have {width}x{height} pixels, at most {LARGEST_SIDE} a side can be drawn")
    drawn = [torch.cat([_widened(_framed(image, enlarge), column) for image in row], dim=1) for row in rows]
    picture = torch.cat([_widened(row, width) for row in drawn])
    figure = Figure(figsize=(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH), dpi=PIXELS_PER_INCH)
    figure.figimage(picture.numpy())
    _save(figure, file)


def _tile_shape(images: Tensor, enlarge: int) -> tuple[int, int]:
    """Height and width in pixels of a framed one of images [N, C, H, W]."""
    channels, height, width = images.shape[1:]
    return enlarge * height + 2, enlarge * width * (1 if channels == 3 else channels) + 2


def _framed(image: Tensor, enlarge: int) -> Tensor:
    """[C, H, W] as RGB [H', W', 3] with a white frame; channels that are no colours stand side by side."""
    channels = image.detach().float().cpu().clamp(0, 1).nan_to_num(0)
    if len(channels) != 3:
        channels = torch.cat(list(channels), dim=1).expand(3, -1, -1)
    enlarged = channels.repeat_interleave(enlarge, dim=1).repeat_interleave(enlarge, dim=2)
    return torch.nn.functional.pad(enlarged, (1, 1, 1, 1), value=1.0).permute(1, 2, 0)


def _widened(tile: Tensor, width: int) -> Tensor:
    """[H, W, 3] with white at its right up to a width."""
    return torch.nn.functional.pad(tile, (0, 0, 0, width - tile.shape[1]), value=1.0)


def _save(figure: Figure, file: Path) -> None:
    with replaced_when_written(file) as temporary:
        figure.savefig(temporary, format="png", dpi=PIXELS_PER_INCH)


def draw_run_samples(run: Run, n: int, seed: int, split: str, file: Path) -> None:
    """Samples in rows; of a conditional model, below the contexts of the data set's first examples they were drawn for.

    Raises:
        ValueError: fewer examples in the data set than contexts needed; a picture too large to be drawn; a model of a
            user's own without ``sample``.
    """
    if not hasattr(run.model, "sample"):
        raise ValueError(f"the run's model {type(run.model).__name__} has no method sample(n, context=None)")
    context = [_examples(run, n, split)["context"]] if _is_conditional(run) else []
    with torch.no_grad(), fixed_seed(seed, torch.device("cpu")):
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
    grows = hasattr(run.model, "progress")
    method = cast(Callable[..., Tensor], run.model.progress if grows else run.model)
    with torch.no_grad(), fixed_seed(seed, torch.device("cpu")):
        drawn = method(examples["x"], *context)
    rows = _evenly_chosen(drawn) if grows else [as_output(drawn).x_hat]
    draw_stacked([*context, examples["x"], *rows], file)


def _is_conditional(run: Run) -> bool:
    """Whether the run's model takes a context: on data without one the same kind of model does not."""
    return getattr(run.model, "context_shape", None) is not None


def _examples(run: Run, n: int, split: str) -> dict[str, Tensor]:
    config = run.config
    dataset = geco_ext.data.load(config.data, split, config.root, config.size, config.seed, strict=config.strict)
    if n > len(dataset):
        raise ValueError(f"n must be at most the {len(dataset)} examples of {config.data!r} ({split}), got {n}")
    return dataset[:n]


def _evenly_chosen(steps: Tensor) -> list[Tensor]:
    count = min(len(steps), GROWTH_ROWS)
    return [steps[round((index + 1) * len(steps) / count) - 1] for index in range(count)]

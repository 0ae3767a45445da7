"""The pictures of a run: trajectory, reconstructions, samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

import geco_ext.data
from geco_ext.data import ImageDataset
from geco_ext.training.evaluation import fixed_seed
from geco_ext.training.models import as_output
from geco_ext.training.own_code import own_call
from geco_ext.training.run import Run
from geco_ext.training.run_folder import History
from geco_ext.training.settings import TrainingSettings
from geco_ext.training.tiles import draw_stacked, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

USUAL = 64  # samples or examples, where no number is given
GROWTH_ROWS = 8
"""Steps of a growing reconstruction that are shown, at most: evenly chosen, the last among them."""

CONTEXT, DATA, RECONSTRUCTION, SAMPLE = "context", "data", "reconstruction", "sample"
"""Names of rows."""


def title_of(run: Path | None, settings: TrainingSettings) -> str:
    """Run, model and data, in a line.

    Example:
        >>> title_of(Path("runs/demo"), TrainingSettings(data="folder:/home/me/faces"))
        'demo: nvp on folder:faces'
    """
    own = own_call(settings.model)
    kind, colon, path = settings.data.partition(":")
    name = "" if run is None else f"{run.resolve().name}: "
    return f"{name}{own.name if own else settings.model} on {kind}{colon}{Path(path).name}"


def draw_trajectory(history: History, tolerances: Mapping[str, float], file: Path, title: str = "") -> None:
    """RMSE, KL and multipliers against the step; ``tolerances`` (name to kappa) are drawn on the RMSE.

    An objective without constraints shows sigma and beta in the place of the multipliers.
    """
    from matplotlib.figure import Figure

    steps = history["step"]
    constraints = {name: values for name, values in history.items() if name.startswith("moving_average/")}
    others = {name: values for name, values in constraints.items() if name.split("/", 1)[1] not in tolerances}
    figure = Figure(figsize=(8, 9 if others else 7), layout="constrained")
    figure.suptitle(title, fontsize="medium", parse_math=False)
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
        _label_ticks_plainly(each)
    axes[-1].set(xlabel="step")
    save_figure(figure, file)


def _label_ticks_plainly(axes: Axes) -> None:
    """Numbers as people write them, not powers of ten; between these too where the axis has no two of them."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    plain = FuncFormatter(lambda value, _: plain_number(value))
    axes.xaxis.set_major_formatter(plain)
    axes.yaxis.set_major_formatter(plain)
    if axes.get_yscale() == "log":
        low, high = axes.get_ylim()
        axes.yaxis.set_minor_formatter(plain if high < 10 * low else NullFormatter())


def plain_number(value: float) -> str:
    """Without an exponent where digits will do.

    Example:
        >>> plain_number(0.05), plain_number(25600.0), plain_number(300000.0)
        ('0.05', '25600', '300000')
    """
    return f"{value:.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"


def _draw_by_name(axes: Axes, steps: Sequence[float], values: Mapping[str, Sequence[float]]) -> None:
    for name, series in values.items():
        axes.plot(steps, series, linewidth=1, label=name.split("/", 1)[-1])
    axes.legend()


def draw_run_samples(run: Run, n: int | None, seed: int, split: str, file: Path) -> None:
    """Samples in rows; of a conditional model, below the contexts of the data set's first examples they were drawn for.

    Raises:
        ValueError: fewer examples in the data set than contexts needed; a picture too large to be drawn; a model of a
            user's own without ``sample``.
    """
    if not hasattr(run.model, "sample"):
        raise ValueError(f"the run's model {type(run.model).__name__} has no method sample(n, context=None)")
    context = [_examples(run, n, split)[0]["context"]] if run.takes_context else []
    with torch.no_grad(), fixed_seed(seed, torch.device("cpu")):
        samples = cast(Callable[..., Tensor], run.model.sample)(len(context[0]) if context else n or USUAL, *context)
    draw_samples(samples, context, title_of(run.path, run.config), file)


def draw_samples(samples: Tensor, context: Sequence[Tensor], title: str, file: Path) -> None:
    """Samples, below their contexts where there are any."""
    draw_stacked([*context, samples], file, title, [*[CONTEXT] * len(context), SAMPLE])


def draw_run_reconstructions(run: Run, n: int | None, seed: int, split: str, file: Path) -> None:
    """The data set's first examples in rows, below each what the model makes of it at one posterior sample.

    A model with a method ``progress(x, context=None)`` [T, B, C, H, W] has several rows below: how the reconstruction
    grows over its steps, the last row being the reconstruction. Contexts of a conditional model stand above the data.

    Raises:
        ValueError: fewer examples in the data set; a picture too large to be drawn.
    """
    examples, classes = _examples(run, n, split)
    context = [examples["context"]] if run.takes_context else []
    grows = hasattr(run.model, "progress")
    method = cast(Callable[..., Tensor], run.model.progress if grows else run.model)
    with torch.no_grad(), fixed_seed(seed, torch.device("cpu")):
        drawn = method(examples["x"], *context)
    rows = _evenly_chosen(drawn) if grows else {RECONSTRUCTION: as_output(drawn).x_hat}
    title = f"{title_of(run.path, run.config)}, {split}"
    names = [*[CONTEXT] * len(context), DATA, *rows]
    draw_stacked([*context, examples["x"], *rows.values()], file, title, names, classes)


def _examples(run: Run, n: int | None, split: str) -> tuple[dict[str, Tensor], list[str] | None]:
    """The first examples (None: as many as are usual and there are), and the names of their classes."""
    config = run.config
    dataset = geco_ext.data.load(config.data, split, config.root, config.size, config.seed, strict=config.strict)
    n = min(USUAL, len(dataset)) if n is None else n
    if n > len(dataset):
        raise ValueError(f"n must be at most the {len(dataset)} examples of {config.data!r} ({split}), got {n}")
    return dataset[:n], classes_of(dataset, n)


def classes_of(dataset: ImageDataset, n: int) -> list[str] | None:
    """The classes of the first n examples, in words; None where all have the same, as those without labels do."""
    is_labelled = bool((dataset.labels != dataset.labels[:1]).any())
    return [dataset.class_name(label) for label in dataset.labels[:n].tolist()] if is_labelled else None


def _evenly_chosen(steps: Tensor) -> dict[str, Tensor]:
    count = min(len(steps), GROWTH_ROWS)
    chosen = [round((index + 1) * len(steps) / count) for index in range(count)]
    return {
        RECONSTRUCTION if step == len(steps) else f"step {step} of {len(steps)}": steps[step - 1] for step in chosen
    }

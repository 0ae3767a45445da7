"""What a trained run's model makes of images in its latents: all codes of a data set, and a way between two images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

import geco_ext.data
from geco_ext.data import ImageDataset
from geco_ext.data.request import EmptySplitError
from geco_ext.files import replaced_when_written
from geco_ext.training.evaluation import EVALUATION_BATCH, fixed_seed
from geco_ext.training.models import METHODS, described, takes_argument, unavailable_commands
from geco_ext.training.pictures import CONTEXT, title_of
from geco_ext.training.run import Run
from geco_ext.training.tiles import draw_stacked

SPLITS = {"train": ("train",), "test": ("test",), "all": ("train", "test")}
"""What `geco encode --split` may be, and the parts of the data that stand in its file, in this order."""

WAY = "data, way, data"
"""Name of the row that holds two examples at its ends, and images on the way between them."""


def data_for(run: Run, split: str, data: str | None = None, root: Path | None = None) -> ImageDataset:
    """The run's data, or other data of the size its model takes.

    Args:
        run: the run.
        split: ``train`` or ``test``.
        data: name of other data, as :func:`geco_ext.data.load` takes it; None: the run's.
        root: folder with the files of data that are not embedded; None: the run's, for the run's data.

    Raises:
        ValueError: data that cannot be used, or of other shapes than the model's.
        FileNotFoundError: data that are not there.
    """
    config = run.config
    own = data is None or data == config.data
    _, height, width = run.image_shape
    size = config.size if own else height if height == width else None
    name = config.data if data is None else data
    dataset = geco_ext.data.load(
        name, split, root or (config.root if own else None), size, config.seed, strict=config.strict
    )
    if dataset.image_shape != run.image_shape:
        raise ValueError(
            f"data {name!r}: images of shape {dataset.image_shape}, the run's model takes {run.image_shape}"
        )
    if run.context_shape is not None and dataset.context_shape != run.context_shape:
        raise ValueError(
            f"data {name!r}: contexts of shape {dataset.context_shape}, the run's model takes {run.context_shape}"
        )
    return dataset


def parts_for(run: Run, split: str, data: str | None = None, root: Path | None = None) -> dict[str, ImageDataset]:
    """The splits that a name stands for, which may be ``all``: then also data that are too few to have a test split.

    Raises:
        ValueError: another name; what :func:`data_for` refuses.
        FileNotFoundError: data that are not there.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    parts = {}
    for part in SPLITS[split]:
        try:
            parts[part] = data_for(run, part, data, root)
        except EmptySplitError:
            if not parts:
                raise
    return parts


def method_for(command: str, run: Run) -> Callable[..., Tensor]:
    """What a command calls of the run's model (:data:`geco_ext.training.models.METHODS`).

    Raises:
        ValueError: a model of a user's own that has no such method.
    """
    if command in unavailable_commands(run.model):
        raise ValueError(f"the run's model {type(run.model).__name__} has no method {METHODS[command]}")
    return cast(Callable[..., Tensor], getattr(run.model, METHODS[command].partition("(")[0]))


@torch.no_grad()
def embedded(run: Run, dataset: ImageDataset, samples: int, seed: int, quiet: bool = False) -> Tensor:
    """Latents [N, D] of a whole data set, computed on the model's device, on the CPU; progress is shown on stderr.

    Args:
        run: the run.
        dataset: N examples.
        samples: as :meth:`~geco_ext.models.VariationalAutoencoder.embed` takes them.
        seed: of what is drawn at random, where there are samples.
        quiet: show no progress.

    Raises:
        ValueError: a model of a user's own without ``embed``, or whose ``embed`` takes no ``samples`` where some are
            asked for, or gives something else than [B, D].
    """
    from tqdm import tqdm  # type: ignore[import-untyped]

    embed, device = method_for("encode", run), next(run.model.parameters()).device
    takes_samples = takes_argument(embed, "samples")
    if samples and not takes_samples:
        raise ValueError(f"samples: got {samples}, and embed of the run's model {type(run.model).__name__} takes none")
    options = {"samples": samples} if takes_samples else {}
    latents = torch.empty(0)
    with (
        fixed_seed(seed, device),
        tqdm(total=len(dataset), desc="encoding", unit="images", disable=quiet or None) as bar,
    ):
        for first in range(0, len(dataset), EVALUATION_BATCH):
            batch = dataset[first : first + EVALUATION_BATCH]
            context = [batch["context"].to(device)] if run.takes_context else []
            codes = embed(batch["x"].to(device), *context, **options)
            if not isinstance(codes, Tensor) or codes.dim() != 2 or len(codes) != len(batch["x"]):
                raise ValueError(
                    f"embed of the run's model {type(run.model).__name__} gave {described(codes)} for "
                    f"{len(batch['x'])} images, expected latents [B, D]"
                )
            if first == 0:
                latents = torch.empty(len(dataset), codes.shape[1], dtype=codes.dtype)
            latents[first : first + len(codes)] = codes.cpu()
            bar.update(len(codes))
    return latents


def write_latents(parts: Mapping[str, tuple[Tensor, ImageDataset]], file: Path, with_split: bool = False) -> None:
    """An .npz file with ``latents`` [N, D], ``labels`` [N] or [N, K] and ``index`` [N], places in their split.

    Where they are known also ``names`` [N] of the examples, such as files of a folder, and ``class_names``, one for
    each label; both are texts.

    Args:
        parts: latents by split and what they are of; one after the other in the file.
        file: to write.
        with_split: have ``split`` [N] as well, the names of the splits.
    """
    latents, datasets = zip(*parts.values(), strict=True)
    arrays: dict[str, Any] = {
        "latents": torch.cat(latents).numpy(),
        "labels": torch.cat([dataset.labels for dataset in datasets]).numpy(),
        "index": np.concatenate([np.arange(len(dataset)) for dataset in datasets]),
    }
    names = [name for dataset in datasets for name in dataset.names]
    for name, texts in (("names", names), ("class_names", datasets[0].class_names)):
        if texts:
            arrays[name] = np.array(texts, dtype=np.str_)
    if with_split:
        arrays["split"] = np.repeat([*parts], [len(dataset) for dataset in datasets])
    with replaced_when_written(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


@torch.no_grad()
def draw_interpolation(run: Run, a: int, b: int, steps: int, split: str, file: Path) -> None:
    """Example a of the run's data, images on the way from its code to that of example b, and b, in a row.

    Those of a conditional model stand below the contexts they were decoded with.

    Raises:
        ValueError: an index that the data set has not; a picture too large to be drawn; a model of a user's own
            without ``interpolate``.
    """
    interpolate, dataset = method_for("interpolate", run), data_for(run, split)
    for name, index in (("A", a), ("B", b)):
        if index >= len(dataset):
            raise ValueError(
                f"{name} must be below the {len(dataset)} examples of {run.config.data!r} ({split}), got {index}"
            )
    title = f"{title_of(run.path, run.config)}, {split}: from example {a} to {b}"
    ends = dataset[torch.tensor([a, b])]
    first, last = ends["x"][:1], ends["x"][1:]
    if not run.takes_context:
        images = interpolate(first, last, steps)[:, 0]
        draw_stacked([torch.cat([first, images, last])], file, title, [WAY])
        return
    of_first, of_last = ends["context"][:1], ends["context"][1:]
    images = interpolate(first, last, steps, of_first, of_last)[:, 0]
    contexts = [of_first.lerp(of_last, index / (steps - 1)) for index in range(steps)]
    layers = [torch.cat([of_first, *contexts, of_last]), torch.cat([first, images, last])]
    draw_stacked(layers, file, title, [CONTEXT, WAY])

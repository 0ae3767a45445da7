"""A run's model and criterion, made from its configuration, and a trained run loaded from its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geco_ext.models import NVPVAE, ConvDraw
from geco_ext.training.constraints import build_constraints
from geco_ext.training.objectives import Criterion, build_objective
from geco_ext.training.run_folder import RunConfiguration, RunFolder
from geco_ext.training.settings import TrainingSettings


@dataclass(frozen=True)
class ModelEntry:
    """A model the registry knows.

    Attributes:
        model: its class.
        takes_context: whether it is conditional where the data have a context; other models are not given one.
    """

    model: Callable[..., nn.Module]
    takes_context: bool


MODELS = {
    "nvp": ModelEntry(NVPVAE, takes_context=False),
    "convdraw": ModelEntry(ConvDraw, takes_context=True),
    "unconditional-convdraw": ModelEntry(ConvDraw, takes_context=False),
}


def build_model(
    name: str,
    image_shape: Sequence[int],
    context_shape: Sequence[int] | None = None,
    options: Mapping[str, int] | None = None,
) -> nn.Module:
    """A freshly initialised model for images of ``image_shape`` (C, H, W).

    Raises:
        ValueError: an unknown name or option, or a shape or option the model refuses.
    """
    entry = model_entry(name)
    arguments = {"context_shape": context_shape} if entry.takes_context else {}
    try:
        return entry.model(image_shape, **arguments, **(options or {}))
    except TypeError as error:
        raise ValueError(f"model {name!r} refuses its options: {error}") from error


def model_entry(name: str) -> ModelEntry:
    """What the registry knows of a model.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; known are {', '.join(MODELS)}")
    return MODELS[name]


def build(configuration: RunConfiguration) -> tuple[nn.Module, Criterion]:
    """A freshly initialised model, its weights drawn from the run's seed, and a fresh criterion.

    Raises:
        ValueError: an unknown model, objective or constraint, or values they refuse.
    """
    settings = configuration.settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = build_model(
            settings.model, configuration.image_shape, configuration.context_shape, settings.model_options
        )
    return model, build_criterion(settings)


def build_criterion(settings: TrainingSettings) -> Criterion:
    """A fresh criterion.

    Raises:
        ValueError: an unknown objective or constraint, or values they refuse.
    """
    return build_objective(settings.objective, settings.steps, build_constraints(settings.constraints))


def load_part(module: nn.Module, state: Mapping[str, Any], part: str) -> None:
    """Load the entries of a checkpoint's state that belong to one part (``model`` or ``criterion``).

    Raises:
        ValueError: they do not fit; the checkpoint belongs to another configuration.
    """
    prefix = f"{part}."
    try:
        module.load_state_dict({name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)})
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"the checkpoint's {part} is not that of the run's configuration: {first}") from error


@dataclass(frozen=True)
class Run:
    """A trained run.

    Attributes:
        model: the model with its weights, on the CPU, in eval mode.
        criterion: the criterion with its multipliers (or sigma and beta, for another objective), in eval mode.
        config: the settings the run was trained with.
        step: optimiser steps done.
    """

    model: nn.Module
    criterion: Criterion
    config: TrainingSettings
    step: int


def load_run(path: str | Path) -> Run:
    """A run of `geco train` from its folder (its last checkpoint) or one of its checkpoint files.

    A checkpoint is read as tensors and plain values, never as code. A run whose constraint is a class of one's own
    imports that class again.

    Raises:
        FileNotFoundError: no run, or no checkpoint yet.
        ValueError: a damaged configuration or checkpoint.

    Example:
        >>> run = geco_ext.load_run("runs/demo")                                        # doctest: +SKIP
        >>> images = run.model.sample(16)                                               # doctest: +SKIP
        >>> run.criterion.multiplier, run.config.constraints, run.step                  # doctest: +SKIP
    """
    folder, file = RunFolder.holding(Path(path))
    configuration = folder.read_configuration()
    checkpoint = folder.read_checkpoint(file)
    model, criterion = build(configuration)
    load_part(model, checkpoint["state_dict"], "model")
    load_part(criterion, checkpoint["state_dict"], "criterion")
    return Run(model.eval(), criterion.eval(), configuration.settings, checkpoint["global_step"])

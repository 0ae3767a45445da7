"""A run's model and criterion, made from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from geco_ext import GECOLoss
from geco_ext.training.constraint_argument import build_constraints
from geco_ext.training.gaussian_objective import Criterion
from geco_ext.training.model_registry import build_model
from geco_ext.training.objective_argument import build_objective, paper_rate
from geco_ext.training.run_folder import RunConfiguration
from geco_ext.training.settings import GECO, TrainingSettings


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
    if settings.objective == GECO:
        return GECOLoss(build_constraints(settings.constraints))
    if settings.is_constrained:
        return GECOLoss.paper(build_constraints(settings.constraints), lr=paper_rate(settings.objective))
    return build_objective(settings.objective, settings.steps)


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

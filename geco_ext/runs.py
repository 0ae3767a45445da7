"""Trained runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from geco_ext.training.gaussian_objective import Criterion
    from geco_ext.training.settings import TrainingSettings


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
    from geco_ext.training.build import build, load_part
    from geco_ext.training.run_folder import RunFolder

    folder, file = RunFolder.holding(Path(path))
    configuration = folder.read_configuration()
    checkpoint = folder.read_checkpoint(file)
    model, criterion = build(configuration)
    load_part(model, checkpoint["state_dict"], "model")
    load_part(criterion, checkpoint["state_dict"], "criterion")
    return Run(model.eval(), criterion.eval(), configuration.settings, checkpoint["global_step"])

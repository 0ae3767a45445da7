"""A run's model and criterion, made from its configuration, and a trained run loaded from its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geco_ext import GECOLoss
from geco_ext.checks import NoToleranceError
from geco_ext.state import LATER_ROWS, PERSISTENT_ROWS
from geco_ext.training.constraints import build_constraints, is_own, set_schedules
from geco_ext.training.models import build_model
from geco_ext.training.objectives import Criterion, build_objective
from geco_ext.training.own_code import own_call
from geco_ext.training.run_folder import RunConfiguration, RunFolder
from geco_ext.training.settings import TrainingSettings, read_schedule
from geco_ext.warn import warn_user


def build(configuration: RunConfiguration) -> tuple[nn.Module, Criterion]:
    """A freshly initialised model, its weights drawn from the run's seed, and a fresh criterion.

    Raises:
        ValueError: an unknown model, objective or constraint, or values they refuse.
    """
    return _build_model(configuration), build_criterion(configuration.settings)


def _build_model(configuration: RunConfiguration) -> nn.Module:
    settings = configuration.settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return build_model(
            settings.model, configuration.image_shape, configuration.context_shape, settings.model_options
        )


def build_criterion(settings: TrainingSettings) -> Criterion:
    """A fresh criterion.

    Raises:
        ValueError: an unknown objective or constraint, or values they refuse.
    """
    constraints = build_constraints(settings.constraints)
    if settings.kappa_schedule is not None:
        if not constraints:
            raise ValueError(f"kappa schedule cannot be given with the objective {settings.objective!r}")
        set_schedules(constraints, *read_schedule(settings.kappa_schedule))
    return build_objective(settings.objective, settings.steps, constraints, settings.multipliers)


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


class LeftOut(UserWarning):
    """A part of a run was not loaded; the message is a line that commands show as it is."""


@dataclass(frozen=True)
class Run:
    """A trained run.

    Attributes:
        model: the model with its weights, on the CPU, in eval mode.
        criterion: the criterion with its multipliers (or sigma and beta, for another objective), in eval mode; None
            where it or all its constraints were left out (:func:`load_run`).
        config: the settings the run was trained with.
        step: optimiser steps done.
        takes_context: whether the model is given the context of the data.
        path: the run folder; None for a run that was put together by hand.
        image_shape: (C, H, W) of its images.
        context_shape: (C', H, W) of the contexts that the model is given; None where it is given none.
    """

    model: nn.Module
    criterion: Criterion | None
    config: TrainingSettings
    step: int
    takes_context: bool = False
    path: Path | None = None
    image_shape: tuple[int, ...] = ()
    context_shape: tuple[int, ...] | None = None


def load_run(path: str | Path, trust: bool = False) -> Run:
    """A run of `geco train` from its folder (its last checkpoint) or one of its checkpoint files.

    A checkpoint is read as tensors and plain values, never as code.

    Args:
        path: the folder or the file.
        trust: import the code that the run names: classes of one's own. Without it constraints of one's own are left
            out of the criterion, with a warning; the multipliers of the others are the run's. Where they cannot be told
            apart, and where the objective is one's own, the criterion is None. A model of one's own is refused.

    A run of an earlier version with a tolerance of zero, which is refused now, has no criterion either, with a warning.

    Raises:
        FileNotFoundError: no run, or no checkpoint yet.
        ValueError: a damaged configuration or checkpoint; a model of one's own without trust.

    Example:
        >>> run = geco_ext.load_run("runs/demo")                                        # doctest: +SKIP
        >>> images = run.model.sample(16)                                               # doctest: +SKIP
        >>> run.criterion.multiplier, run.config.constraints, run.step                  # doctest: +SKIP
    """
    folder, file = RunFolder.holding(Path(path))
    configuration = folder.read_configuration()
    if not trust and own_call(configuration.settings.model) is not None:
        raise ValueError(
            f"the model of run {folder.path} is code of its own, {configuration.settings.model}; trust=True imports it "
            "(of a command: --trust)"
        )
    checkpoint = folder.read_checkpoint(file)
    settings, state = configuration.settings, checkpoint["state_dict"]
    model = _build_model(configuration)
    load_part(model, state, "model")
    criterion = _criterion(settings, state, trust)
    return Run(
        model.eval(),
        criterion and criterion.eval(),
        settings,
        checkpoint["global_step"],
        takes_context=configuration.context_shape is not None,
        path=folder.path,
        image_shape=configuration.image_shape,
        context_shape=configuration.context_shape,
    )


def _criterion(settings: TrainingSettings, state: Mapping[str, Any], trust: bool) -> Criterion | None:
    if settings.has_own_objective and not trust:
        warn_user(
            f"load_run: the criterion is left out, it is code of the run's own, {settings.objective}: "
            "trust=True imports it",
            LeftOut,
        )
        return None
    left_out = [] if trust else [index for index, text in enumerate(settings.constraints) if is_own(text)]
    try:
        return _without(settings, state, left_out) if left_out else _with_state(build_criterion(settings), state)
    except NoToleranceError as error:
        warn_user(
            f"load_run: the criterion is left out, it is one that this version refuses ({error}); a new run with a "
            "tolerance has one again",
            LeftOut,
        )
        return None


def _with_state(criterion: Criterion, state: Mapping[str, Any]) -> Criterion:
    load_part(criterion, state, "criterion")
    return criterion


def _without(settings: TrainingSettings, state: Mapping[str, Any], left_out: Sequence[int]) -> Criterion | None:
    """The criterion without some of its constraints, and what the state has of the others; None where it cannot be."""
    others = build_constraints([text for index, text in enumerate(settings.constraints) if index not in left_out])
    criterion, why = None, ""
    try:
        if others:
            criterion = build_objective(settings.objective, settings.steps, others, settings.multipliers)
    except ValueError as error:  # what is asked for each of the run's constraints does not fit those that are left
        why = f", and with it the criterion ({error})"
    if isinstance(criterion, GECOLoss):
        rows = _number_of_rows(state)
        of_left_out = rows - sum(constraint._rows for constraint in others)
        if of_left_out == len(left_out) or (of_left_out > 0 and len(left_out) == 1):
            state = _state_without(state, [constraint._rows for constraint in others], left_out, of_left_out)
        else:
            criterion, why = None, f", and with it the criterion (whose its {rows} rows are is not told)"
    named = ", ".join(settings.constraints[index] for index in left_out)
    warn_user(
        f"load_run: {named} is left out of the criterion{why}: "
        "trust=True imports the code of a constraint of one's own",
        LeftOut,
    )
    return criterion and _with_state(criterion, state)


def _number_of_rows(state: Mapping[str, Any]) -> int:
    names = [n for n in PERSISTENT_ROWS if n not in LATER_ROWS or f"criterion.{n}" in state]
    values = [state.get(f"criterion.{name}") for name in names]
    shapes = {tuple(value.shape) if isinstance(value, torch.Tensor) else () for value in values}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 1:
        raise ValueError("the checkpoint's criterion is damaged: its rows are not of one length")
    return shape[0]


def _state_without(
    state: Mapping[str, Any], rows_of_others: Sequence[int], left_out: Sequence[int], rows_of_left_out: int
) -> dict[str, Any]:
    """The rows of the other constraints, and their buffers, counted anew."""
    of_each = rows_of_left_out // len(left_out)
    others = iter(rows_of_others)
    kept: list[int] = []
    places: dict[str, str] = {}  # of a constraint, before and after
    start = 0
    for index in range(len(rows_of_others) + len(left_out)):
        count = of_each if index in left_out else next(others)
        if index not in left_out:
            kept += range(start, start + count)
            places[f"criterion.constraints.{index}."] = f"criterion.constraints.{len(places)}."
        start += count
    found = {}
    for name, value in state.items():
        if name.startswith("criterion.constraints."):
            before = ".".join(name.split(".")[:3]) + "."
            if before in places:
                found[places[before] + name.removeprefix(before)] = value
        elif name.removeprefix("criterion.") in PERSISTENT_ROWS:
            found[name] = value[kept]
        else:
            found[name] = value
    return found

"""What is made of a finished training: the report and the pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from geco_ext.data import ImageDataset
from geco_ext.training.constrained_training import ConstrainedTraining
from geco_ext.training.constraint_result import ConstraintResult, constraint_results, reconstruction_tolerances
from geco_ext.training.evaluation import drawn_from, evaluate, on_device
from geco_ext.training.gaussian_objective import GaussianObjective
from geco_ext.training.metrics_history import read_history
from geco_ext.training.objective_result import objective_result
from geco_ext.training.pictures import draw_stacked, draw_trajectory
from geco_ext.training.report import Report
from geco_ext.training.run_folder import RunFolder
from geco_ext.training.settings import TrainingSettings

PICTURED = 64
"""Reconstructions and samples in the pictures."""


def finish(
    folder: RunFolder, module: ConstrainedTraining, dataset: ImageDataset, settings: TrainingSettings, seconds: float
) -> Report:
    """Measure the model on its training set, write the results and draw the pictures into the run folder."""
    module.eval()
    history = read_history(folder.metrics_file)
    evaluation = evaluate(module, dataset, settings.seed)
    criterion = module.criterion
    constraints: tuple[ConstraintResult, ...] = ()
    tolerances: dict[str, float] = {}
    objective = None
    if isinstance(criterion, GaussianObjective):
        objective = objective_result(settings.objective, criterion, evaluation, dataset)
    else:
        constraints = constraint_results(criterion, evaluation, history)
        tolerances = reconstruction_tolerances(criterion)
    report = Report(
        steps=settings.steps,
        seconds=seconds,
        skipped_steps=int(module.skipped_steps),
        rmse=evaluation.rmse,
        kl=evaluation.kl,
        constraints=constraints,
        objective=objective,
    )
    report.write(folder)
    if history:  # gone where a finished run is resumed without its metrics file
        draw_trajectory(history, tolerances, folder.path / "trajectory.png")
    examples = on_device(dataset[:PICTURED], module.device)
    context = (examples["context"],) if module.takes_context else ()
    with torch.no_grad(), drawn_from(settings.seed, module.device):
        draw_stacked([examples["x"], module.reconstructed(examples).x_hat], folder.path / "reconstructions.png")
        sample = cast(Callable[..., Tensor], module.model.sample)
        draw_stacked([*context, sample(len(examples["x"]), *context)], folder.path / "samples.png")
    return report

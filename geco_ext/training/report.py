"""What is made of a finished training: the table, the results as JSON, the pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import cast

import torch
from torch import Tensor

from geco_ext.data import ImageDataset
from geco_ext.files import replaced_when_written
from geco_ext.training.evaluation import (
    ConstraintResult,
    ObjectiveResult,
    constraint_results,
    evaluate,
    fixed_seed,
    objective_result,
    on_device,
    reconstruction_tolerances,
)
from geco_ext.training.objectives import GaussianObjective
from geco_ext.training.pictures import DATA, RECONSTRUCTION, classes_of, draw_samples, draw_trajectory, title_of
from geco_ext.training.remarks import about_constraints, format_number
from geco_ext.training.run_folder import RunFolder, read_history
from geco_ext.training.settings import TrainingSettings
from geco_ext.training.tiles import draw_stacked
from geco_ext.training.training_step import ConstrainedTraining

PICTURED = 64
"""Reconstructions and samples in the pictures."""

OBJECTIVE_HEADINGS = ("objective", "RMSE", "NLL (nats)", "KL (nats)", "beta", "sigma")
HEADINGS = ("constraint", "kappa asked", "reached", "deviation", "KL (nats)", "multiplier", "met")
HELD_OUT_HEADINGS = ("held out", "met held out")


@dataclass(frozen=True)
class HeldOut:
    """What a run came to on examples that it was not trained on.

    Attributes:
        examples: how many.
        rmse: root of the mean squared error over all elements.
        kl: mean KL in nats.
        samples: posterior samples of each example.
    """

    examples: int
    rmse: float
    kl: float
    samples: int = 1


@dataclass(frozen=True)
class Report:
    """What a run came to, measured on the training set in eval mode.

    Attributes:
        steps: optimiser steps done.
        seconds: wall-clock time of the steps of this process (a resumed run counts from where it resumed).
        skipped_steps: steps left out because something was not finite.
        rmse: root of the mean squared error over all elements.
        kl: mean KL in nats.
        constraints: one result per constraint.
        objective: what an objective without constraints came to; None for GECO.
        held_out: the same on other examples, where there are any; of the constraints, their results say it.
        stopped_early: whether training ended because these got no better.
        samples: posterior samples of each example.
    """

    steps: int
    seconds: float
    skipped_steps: int
    rmse: float
    kl: float
    constraints: tuple[ConstraintResult, ...]
    objective: ObjectiveResult | None = None
    held_out: HeldOut | None = None
    stopped_early: bool = False
    samples: int = 1

    def table(self) -> str:
        """A Markdown table with padded columns, readable in a terminal as it is."""
        if self.objective is not None:
            return _padded([OBJECTIVE_HEADINGS, self._objective_row(self.objective)])
        rows = [
            (
                result.name,
                result.asked,
                f"{result.reached:.4f}",
                "-" if result.deviation_percent is None else f"{result.deviation_percent:+.1f}%",
                f"{self.kl:.2f}",
                format_number(result.multiplier),
                "yes" if result.met else "NO, at bound" if result.at_bound else "NO",
                *self._held_out_cells(result),
                *([str(self.skipped_steps)] if self.skipped_steps else []),
            )
            for result in self.constraints
        ]
        of_held_out = HELD_OUT_HEADINGS if self.held_out else ()
        return _padded([(*HEADINGS, *of_held_out, *(["skipped steps"] if self.skipped_steps else [])), *rows])

    def _held_out_cells(self, result: ConstraintResult) -> tuple[str, ...]:
        if self.held_out is None or result.held_out_reached is None:
            return ()
        return f"{result.held_out_reached:.4f}", "yes" if result.held_out_met else "NO"

    def _objective_row(self, objective: ObjectiveResult) -> tuple[str, ...]:
        return (
            objective.name,
            f"{self.rmse:.4f}",
            f"{objective.nll:.2f}",
            f"{self.kl:.2f}",
            format_number(objective.beta),
            format_number(objective.sigma),
        )

    def remarks(self) -> list[str]:
        """What the table does not say by itself, one sentence a line."""
        remarks = [
            f"RMSE {self.rmse:.4f} and KL {self.kl:.2f} nats on the training set, {_samples(self.samples)} an example."
        ]
        if self.held_out is not None:
            remarks.append(
                f"Held out: RMSE {self.held_out.rmse:.4f} and KL {self.held_out.kl:.2f} nats on "
                f"{self.held_out.examples} examples that were not trained on, {_samples(self.held_out.samples)} each."
            )
        else:
            remarks.append(
                "Not measured on other examples: the data have no test split, and --validation was not given."
            )
        if self.stopped_early:
            remarks.append(
                f"Stopped early, after {self.steps} steps: held out, it got no better. The best state is "
                "checkpoints/best.ckpt."
            )
        remarks += about_constraints(self.constraints, self.kl)
        if self.objective is not None:
            remarks.append(
                "NLL is that of an image under the objective's own sigma; under sigma = RMSE, the best for this model "
                f"(equation 26 of the paper) and comparable between objectives, it is {self.objective.optimal_nll:.2f} "
                "nats."
            )
        if self.skipped_steps:
            remarks.append(f"{self.skipped_steps} steps were left out because something was not finite.")
        return remarks

    def write(self, folder: RunFolder) -> None:
        """Save ``results.json`` and ``results.md``."""
        with replaced_when_written(folder.path / "results.json") as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2) + "\n")
        with replaced_when_written(folder.path / "results.md") as temporary:
            temporary.write_text("\n\n".join([self.table(), *self.remarks()]) + "\n")


def _samples(number: int) -> str:
    return "one posterior sample" if number == 1 else f"{number} posterior samples"


def _padded(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write_report(
    folder: RunFolder,
    module: ConstrainedTraining,
    dataset: ImageDataset,
    settings: TrainingSettings,
    seconds: float,
    held_out: ImageDataset | None = None,
    steps: int | None = None,
) -> Report:
    """Measure the model on its training set, write the results and draw the pictures into the run folder.

    Args:
        folder: of the run.
        module: the trained model with its criterion.
        dataset: what it was trained on.
        settings: those of the run.
        seconds: what the steps took.
        held_out: examples that it was not trained on.
        steps: those done, where training stopped early; None: all of the settings.
    """
    module.eval()
    history = read_history(folder.metrics_file)
    evaluation = evaluate(module, dataset, settings.seed)
    elsewhere = None if held_out is None else evaluate(module, held_out, settings.seed)
    steps = settings.steps if steps is None else steps
    criterion = module.criterion
    constraints: tuple[ConstraintResult, ...] = ()
    tolerances: dict[str, float] = {}
    objective = None
    if isinstance(criterion, GaussianObjective):
        objective = objective_result(settings.objective, criterion, evaluation)
    else:
        constraints = constraint_results(criterion, evaluation, history, elsewhere)
        tolerances = reconstruction_tolerances(criterion)
    report = Report(
        steps=steps,
        seconds=seconds,
        skipped_steps=int(module.skipped_steps),
        rmse=evaluation.rmse,
        kl=evaluation.kl,
        constraints=constraints,
        objective=objective,
        held_out=None
        if held_out is None or elsewhere is None
        else HeldOut(len(held_out), elsewhere.rmse, elsewhere.kl, elsewhere.samples),
        stopped_early=steps < settings.steps,
        samples=evaluation.samples,
    )
    report.write(folder)
    title = title_of(folder.path, settings)
    if history:  # gone where a finished run is resumed without its metrics file
        draw_trajectory(history, tolerances, folder.path / "trajectory.png", title)
    examples = on_device(dataset[:PICTURED], module.device)
    classes = classes_of(dataset, PICTURED)
    context = (examples["context"],) if module.takes_context else ()
    with torch.no_grad(), fixed_seed(settings.seed, module.device):
        layers = [examples["x"], module.reconstructed(examples).x_hat]
        draw_stacked(layers, folder.path / "reconstructions.png", title, (DATA, RECONSTRUCTION), classes)
        if hasattr(module.model, "sample"):  # a model of a user's own may have none
            sample = cast(Callable[..., Tensor], module.model.sample)
            draw_samples(sample(len(examples["x"]), *context), context, title, folder.path / "samples.png")
    return report

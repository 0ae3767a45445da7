"""What a training comes to on examples that it has not seen: at its checkpoints, and as a reason to stop."""

from __future__ import annotations

from typing import Any, cast

import lightning as L
import torch

import geco_ext.data
from geco_ext.data import ImageDataset
from geco_ext.data.folder import UnreadableImageError
from geco_ext.data.images import ImageSubset
from geco_ext.training.evaluation import Evaluation, evaluate, objective_result, violations
from geco_ext.training.met import MET_WITHIN, is_met
from geco_ext.training.objectives import Criterion, GaussianObjective
from geco_ext.training.run_folder import MetricsHistory, RunFolder
from geco_ext.training.settings import TrainingSettings
from geco_ext.training.training_step import ConstrainedTraining

MOST_DURING = 1000
"""Reconstructions that are looked at while training goes on, at least; at its end it is those of all examples."""


def split_off(dataset: ImageDataset, settings: TrainingSettings) -> tuple[ImageDataset, ImageDataset | None]:
    """The examples to train on, and those held out: a share of them, or the data set's test split.

    Data without a test split that can be loaded leave the second None: the training is what was asked for.

    Raises:
        ValueError: a share that leaves one of the two empty; with ``strict`` an image that cannot be read.
    """
    if settings.validation is None:
        try:
            return dataset, geco_ext.data.load(
                settings.data, "test", settings.root, settings.size, settings.seed, strict=settings.strict
            )
        except UnreadableImageError:  # with strict alone
            raise
        except (ValueError, OSError):
            return dataset, None
    count = round(settings.validation * len(dataset))
    if not 0 < count < len(dataset):
        raise ValueError(
            f"validation: {settings.validation:g} of {len(dataset)} examples is {count}, expected at least one, not all"
        )
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(settings.seed))
    return ImageSubset(dataset, order[count:].sort().values), ImageSubset(dataset, order[:count].sort().values)


class EvaluateHeldOut(L.Callback):
    """Measures RMSE, KL and constraints at every checkpoint, into ``held_out.csv``; with patience, ends the training.

    It must come before the callback that saves checkpoints, which saves because training is about to stop. The random
    state stays what it was: a training is the same to the bit with and without it.

    Args:
        folder: of the run.
        dataset: the examples held out.
        settings: ``checkpoint_every``, ``seed`` and ``patience``, the number of evaluations in a row that may be no
            better than the best one (:func:`score`); the state of that one stays in ``best.ckpt``.
    """

    def __init__(self, folder: RunFolder, dataset: ImageDataset, settings: TrainingSettings) -> None:
        self.folder = folder
        # Spread over all of them: data sets may be sorted by class, as folders are.
        count = min(MOST_DURING, len(dataset))
        self.dataset = ImageSubset(dataset, torch.arange(count) * len(dataset) // count)
        self.settings = settings
        self.latest: dict[str, float] = {}
        self._history: MetricsHistory | None = None
        self._best: tuple[float, float] | None = None
        self._waited = 0

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: a resumed training has the same best state to beat, and has waited as long."""
        return {"best": self._best, "waited": self._waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back, unless the file of the best state is gone or never was: patience may be new to this run."""
        if self.folder.best_checkpoint.is_file():
            self._best, self._waited = state_dict["best"], state_dict["waited"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the history at the step training starts from."""
        if trainer.is_global_zero:
            self._history = MetricsHistory(self.folder.held_out_file, trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure if a checkpoint is due; the first process alone does, the others learn whether it was better."""
        step = trainer.global_step
        if step % self.settings.checkpoint_every and step != trainer.max_steps:
            return
        is_better = trainer.is_global_zero and self._measure(trainer, cast(ConstrainedTraining, pl_module))
        if self.settings.patience is None:
            return
        if trainer.world_size > 1:
            is_better = trainer.strategy.reduce_boolean_decision(is_better, all=False)
        self._waited = 0 if is_better else self._waited + 1
        if is_better:
            trainer.save_checkpoint(self.folder.best_checkpoint)
        if self._waited >= self.settings.patience:
            trainer.should_stop = True

    def _measure(self, trainer: L.Trainer, module: ConstrainedTraining) -> bool:
        """Whether it is the best so far."""
        module.eval()
        evaluation = evaluate(module, self.dataset, self.settings.seed, MOST_DURING)
        module.train()
        values = {"rmse": evaluation.rmse, "kl": evaluation.kl}
        if not isinstance(module.criterion, GaussianObjective):
            of_scale = violations(module.criterion, evaluation)
            values |= {f"constraint/{name}": float(c) for name, c in zip(of_scale, evaluation.constraints, strict=True)}
            values["met"] = float(all(map(is_met, of_scale.values())))
        self.latest = values
        if self._history is not None:
            self._history.append({"step": trainer.global_step, **values})
        for logger in trainer.loggers:
            logger.log_metrics({f"held_out/{name}": value for name, value in values.items()}, trainer.global_step)
        found = score(module.criterion, evaluation)
        is_better = self._best is None or found < self._best
        if is_better:
            self._best = found
        return is_better

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the history."""
        if self._history is not None:
            self._history.close()
            self._history = None


def score(criterion: Criterion, evaluation: Evaluation) -> tuple[float, float]:
    """What is to be small, the first number first.

    Under constraints: by how much they are not met, together, then the KL. Else the objective itself, NLL + beta KL.
    """
    if isinstance(criterion, GaussianObjective):
        result = objective_result("", criterion, evaluation)
        return result.nll + result.beta * evaluation.kl, 0.0
    return sum(max(0.0, v - MET_WITHIN) for v in violations(criterion, evaluation).values()), evaluation.kl

"""A training whose steps all come out non-finite: that it ends, and why."""

from __future__ import annotations

from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn

from geco_ext.models import WholeBatchNoise
from geco_ext.training.evaluation import constraint_vector
from geco_ext.training.models import takes_argument
from geco_ext.training.objectives import GaussianObjective
from geco_ext.training.training_step import ConstrainedTraining, has_scaler, is_recorded

MOST_IN_A_ROW = 10
"""Skipped steps in a row after which a training ends: what is wrong with all of these batches does not go away."""

HALVINGS = 16
"""How often the scaler of 16-mixed halves its scale to come from 2^16 to 1; each costs a step."""


class NonFiniteTraining(Exception):  # noqa: N818 - named for what happened
    """No step can be taken any more, because something is not finite."""


class StopOnNonFinite(L.Callback):
    """Ends the training after `MOST_IN_A_ROW` skipped steps, with the first thing that is wrong in the last batch.

    How many there are is read where metrics are recorded, since reading waits for the device.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the count if this step is recorded; with several processes it is the same in all of them."""
        module = cast(ConstrainedTraining, pl_module)
        most = MOST_IN_A_ROW + (HALVINGS if has_scaler(trainer) else 0)
        if not is_recorded(trainer.global_step) or int(module.skipped_in_a_row) < most:
            return
        order, cause = first_cause(module, batch, trainer.global_rank, trainer.world_size)
        if trainer.world_size > 1:
            causes: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(causes, (order, cause))
            order, cause = min(causes)
        raise NonFiniteTraining(
            f"training ended at step {trainer.global_step}: {int(module.skipped_in_a_row)} steps in a row were not "
            f"finite and were skipped; first cause: {cause}"
        )


@torch.no_grad()
def first_cause(module: ConstrainedTraining, batch: dict[str, Any], rank: int = 0, ranks: int = 1) -> tuple[int, str]:
    """The first thing that is wrong on the way from the data to the gradient, and its place on this way."""
    x, weight = batch["x"], batch.get("weight")
    seen = x if weight is None else torch.where(weight.expand_as(x) > 0, x, 0.0)
    if bad := _not_finite(seen):
        return 0, f"the data (x) have {bad}"
    low, high = (float(extreme) for extreme in seen.aminmax())
    if low < 0 or high > 1:
        return 1, f"the data (x) are outside [0, 1], from {low:g} to {high:g}"
    if module.takes_context and (bad := _not_finite(batch["context"])):
        return 2, f"the context has {bad}"
    for name, parameter in module.model.named_parameters():
        if bad := _not_finite(parameter):
            return 3, f"the model's weight {name} has {bad}"
    takes_noise = ranks > 1 and takes_argument(module.model.forward, "noise")
    noise = {"noise": WholeBatchNoise(rank, ranks)} if takes_noise else {}
    output = module.reconstructed(batch, **noise)
    if bad := _not_finite(output.x_hat):
        return 4, f"the model's output (x_hat) has {bad}"
    if bad := _not_finite(output.kl):
        return 5, f"the model's kl has {bad}"
    if not isinstance(module.criterion, GaussianObjective):
        values = constraint_vector(module.criterion, output.x_hat, batch)
        for name, value in zip(module.criterion.names, values.tolist(), strict=True):
            if not torch.tensor(value).isfinite():
                return 6, f"constraint {name} is {value}"
    return 7, "the gradient of the loss; data, model output, kl and constraints are finite"


def _not_finite(values: Tensor | nn.Parameter) -> str:
    """How many numbers are NaN or infinite; empty where none is."""
    bad = int((~values.isfinite()).sum())
    return f"{bad} of {values.numel()} numbers that are not finite" if bad else ""

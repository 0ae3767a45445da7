"""The training step: a model, a criterion, and what happens when a step comes out non-finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from geco_ext.models import WholeBatchNoise
from geco_ext.training.models import VariationalOutput, as_output, takes_argument
from geco_ext.training.objectives import Criterion, GaussianObjective, counted_squares

RECORD_EVERY = 10
"""Steps between records of the loss, RMSE, KL and multiplier. Reading them waits for the device, so not every step."""

DECAY_SHARE = 0.2
"""Share of the steps, at the end, over which the learning rate falls linearly to 0, so that the last weights settle."""

SIGMA_FASTER = 10
"""A learned sigma takes steps this many times longer than the weights: a step of Adam is about the learning rate long,
and log sigma has a way of -2 or -3 before it, a weight one of a few hundredths."""


class ConstrainedTraining(L.LightningModule):
    """A model trained with Adam under a criterion, which is a submodule and so checkpointed with it.

    A step whose constraint, KL or gradient is not finite leaves the weights and Adam's moments as they were. Whether
    it is, is known on the device only; asking for it would stall every step of a GPU. Adam's fused kernel reads a
    ``found_inf`` tensor and does nothing where it is 1 - the mechanism behind ``torch.amp.GradScaler`` - so the
    decision is made where the gradients are, and the same way on the CPU.

    Args:
        model: ``forward(x, context=None)`` gives ``x_hat`` and ``kl`` (:data:`geco_ext.training.models.PROTOCOL`); with
            several processes it is called with ``noise``, the :class:`~geco_ext.models.WholeBatchNoise` to draw from,
            as well, if it takes one.
        criterion: the loss: GECO with its multipliers, or one of the objectives it is compared with.
        learning_rate: Adam's, until it falls linearly to 0 over the last fifth of the steps.
        steps: optimiser steps of the whole training.
        takes_context: whether the model is given the data set's context.
    """

    skipped_steps: Tensor
    """Number of steps left out because something was not finite, 0-d int64."""

    skipped_in_a_row: Tensor
    """How many of the last steps were left out, 0-d int64."""

    def __init__(
        self, model: nn.Module, criterion: Criterion, *, learning_rate: float, steps: int, takes_context: bool
    ) -> None:
        super().__init__()
        self.model = model
        self.criterion = criterion
        self.learning_rate = learning_rate
        self.steps = steps
        self.takes_context = takes_context
        self.register_buffer("skipped_steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("skipped_in_a_row", torch.zeros((), dtype=torch.int64), persistent=False)
        self.observed: dict[str, Tensor] = {}
        self._skipped_before: Tensor | None = None
        self._random_state: dict[str, Tensor] | None = None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, fused: one kernel over all parameters, and the one that can skip a step without the host knowing."""
        groups = [{"params": list(self.model.parameters()), "lr": self.learning_rate}]
        if self._own_parameters():
            groups.append({"params": self._own_parameters(), "lr": SIGMA_FASTER * self.learning_rate})
        return with_falling_rate(torch.optim.Adam(groups, fused=True), self.steps)

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        """The loss of one batch, 0-d."""
        x = batch["x"]
        ranks = self._ranks()
        noise = {}
        if ranks > 1 and takes_argument(self.model.forward, "noise"):
            noise["noise"] = WholeBatchNoise(self.global_rank, ranks)
        output = self.reconstructed(batch, **noise)
        self._skipped_before = self.criterion.skipped.clone()
        loss: Tensor = self.criterion(output.x_hat, x, output.kl, labels=batch["label"], weight=batch.get("weight"))
        if is_recorded(self.global_step + 1):
            with torch.no_grad():
                weight = batch.get("weight")
                squared_error = counted_squares(output.x_hat - x, weight).mean()
                counts = torch.ones_like(loss) if weight is None else weight.to(loss.dtype).mean()
                loss_, squared_error, counts, kl = self._over_ranks(
                    loss, squared_error, counts, output.kl.to(loss.dtype).mean()
                )
                self.observed = {"loss": loss_, "rmse": (squared_error / counts).sqrt(), "kl": kl}
        return loss

    def reconstructed(self, batch: dict[str, Any], **options: Any) -> VariationalOutput:
        """The model's reconstruction and KL of a batch, with its context if the model takes one."""
        context = (batch["context"],) if self.takes_context else ()
        return as_output(self.model(batch["x"], *context, **options))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Tell Adam's kernel whether to leave this step out."""
        # With several ranks both are the same everywhere: the criterion's state is, and the gradients are averaged.
        trained = [*self.model.parameters(), *self._own_parameters()]
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        skip = ~norm.isfinite() | (self.criterion.skipped != self._skipped_before)
        self.skipped_steps += skip
        self.skipped_in_a_row.add_(1).mul_(skip)
        if has_scaler(self._trainer):
            # The scaler of 16-mixed has the last word on found_inf, by the gradients alone.
            gradients[0].add_(torch.where(skip, math.nan, 0.0))
        optimizer.found_inf = skip.to(torch.float32)  # type: ignore[attr-defined]  # torch.optim reads, never declares it

    def _own_parameters(self) -> list[nn.Parameter]:
        """A learned sigma. Under GECO none: what a constraint of a user's own holds measures and is not trained."""
        return list(self.criterion.parameters()) if isinstance(self.criterion, GaussianObjective) else []

    def _over_ranks(self, *values: Tensor) -> Sequence[Tensor]:
        """Means over the whole batch of means over each rank's share; the shares are equal."""
        if self._ranks() == 1:
            return [value.detach() for value in values]
        mean: Tensor = self.trainer.strategy.reduce(torch.stack([value.detach() for value in values]), reduce_op="mean")
        return mean.unbind()

    def _ranks(self) -> int:
        return 1 if self._trainer is None else self.trainer.world_size

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the random state, from which the next posterior sample is drawn; it is the same on every rank."""
        checkpoint["random_state"] = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            checkpoint["random_state"]["cuda"] = torch.cuda.get_rng_state(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the random state back, to be set when the first batch starts."""
        self._random_state = checkpoint["random_state"]

    def on_train_batch_start(self, batch: dict[str, Any], batch_index: int) -> None:
        """Set the random state of the checkpoint just before its next step: starting up draws numbers too."""
        if self._random_state is None:
            return
        torch.set_rng_state(self._random_state["cpu"])
        if self.device.type == "cuda" and "cuda" in self._random_state:
            torch.cuda.set_rng_state(self._random_state["cuda"], self.device)
        self._random_state = None


def has_scaler(trainer: L.Trainer | None) -> bool:
    """Whether losses are scaled for gradients of 16 bits; from 2^16, the scale halves at every step that overflows."""
    return trainer is not None and getattr(trainer.precision_plugin, "scaler", None) is not None


def with_falling_rate(optimizer: torch.optim.Optimizer, steps: int) -> OptimizerLRScheduler:
    """An optimiser whose learning rate falls as `learning_rate_factor` says, as Lightning takes it."""
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def learning_rate_factor(step: int, steps: int) -> float:
    """1, then down to 0 in a line over the last `DECAY_SHARE` of the steps; steps count from 0."""
    return min(1.0, (steps - step) / max(1.0, DECAY_SHARE * steps))


def is_recorded(step: int) -> bool:
    """Whether the values of a step, counted from 1, are recorded."""
    return step == 1 or step % RECORD_EVERY == 0

"""RE: reconstruction error."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from geco_ext.checks import (
    check_kappa_non_negative,
    check_labels_are_no_weights,
    check_positive_integer,
    check_prediction,
)
from geco_ext.constraints.base import Constraint, batch_average
from geco_ext.contract import Term
from geco_ext.schedule import Kappa
from geco_ext.weights import Division, check_weight, divided

Reduction = Literal["mean", "sum"]


class ElementwiseConstraint(Constraint):
    """What constraints that compare images number by number share: how they average, and one for each channel."""

    _zero_tolerance = 0.0

    def __init__(
        self, kappa: Kappa, reduction: Reduction = "mean", channels: int | None = None, name: str | None = None
    ) -> None:
        super().__init__(kappa, name)
        self.reduction = check_reduction(reduction)
        self.channels = None if channels is None else check_positive_integer(channels, "channels")
        self._rows = self.channels or 1
        self._checks_images = self.channels is not None
        self._term_tells = self.channels != 1  # one row is also that of all channels together

    def _row_names(self) -> list[str]:
        return [self.name] if self.channels is None else [f"{self.name}/{c}" for c in range(self.channels)]

    def _check(self, x_hat: Tensor, x: Tensor) -> None:
        if self.channels is not None and (x_hat.dim() < 2 or x_hat.shape[1] != self.channels):
            raise ValueError(
                f"x_hat: got shape {tuple(x_hat.shape)}, expected {self.channels} channels (channels={self.channels})"
            )

    def _check_alone(self, x_hat: Tensor, x: Tensor, labels: Tensor | None) -> None:
        """Of a call without a criterion."""
        self._check(x_hat, x)
        check_labels_are_no_weights(labels, x_hat)


class ReconstructionError(ElementwiseConstraint):
    """Squared error between reconstruction and data (RE, Table 1 of "Taming VAEs").

    ``C = mean (or sum) over C, H, W of (x_hat - x)^2 - kappa^2``, satisfied when the root mean squared error per
    element is at most kappa.

    Args:
        kappa: tolerated root mean squared error, in units of the data.
        reduction: ``"mean"`` or ``"sum"`` over the elements of an example.
        channels: one constraint per channel instead of one for the image, named ``name/0``, ``name/1``, ...
        name: key in ``metrics()``.

    Raises:
        ValueError: kappa is not above zero or not finite, reduction is unknown, channels < 1.

    Example:
        >>> import torch
        >>> re = ReconstructionError(kappa=0.1)
        >>> x = torch.zeros(2, 1, 4, 4)
        >>> round(float(re(x + 0.1, x)), 6)
        0.0
    """

    def __init__(  # of its own: Python names it where an argument is misspelt
        self, kappa: Kappa, reduction: Reduction = "mean", channels: int | None = None, name: str | None = None
    ) -> None:
        super().__init__(kappa, reduction, channels, name)

    def forward(self, x_hat: Tensor, x: Tensor, labels: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """Batch average, 0-d ([channels] with ``channels``)."""
        self._check_alone(x_hat, x, labels)
        return reconstruction_error(
            x_hat, x, kappa=self.kappa, reduction=self.reduction, channels=self.channels, weight=weight
        )

    def _term(self) -> Term:
        return Term("squared_error", rows=self._rows, mean=self.reduction == "mean")


def reconstruction_error(
    prediction: Tensor,
    target: Tensor,
    *,
    kappa: float,
    reduction: str = "mean",
    channels: int | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean (or sum) over the elements of an example of (prediction - target)^2, minus kappa^2 (RE, Table 1).

    Args:
        prediction: [B, ...], any float type and strides.
        target: the same shape.
        kappa: tolerated root mean squared error, >= 0.
        reduction: ``"mean"`` or ``"sum"``.
        channels: the number of channels C of images [B, C, ...] to get one constraint per channel, [C].
        weight: bool or float >= 0, [B, 1, ...] or the same shape: the weighted mean (or sum) of an example, averaged
            over the examples with a weight above zero. Where it is zero, neither tensor matters and the gradient is
            zero. Weights get no gradient.

    Returns:
        The batch average, 0-d ([C] with ``channels``).

    Raises:
        ValueError: shapes or devices differ, an empty batch, kappa < 0, an unknown reduction; weights of another shape,
            on the CPU negative or not finite ones (elsewhere they make the result NaN).
        TypeError: integer tensors.

    Example:
        >>> x = torch.zeros(2, 3, 4, 4)
        >>> round(float(reconstruction_error(x + 0.2, x, kappa=0.1)), 6)
        0.03
    """
    check_prediction(prediction, target, ("prediction", "target"))
    kappa = check_kappa_non_negative(kappa)
    term = Term("squared_error", mean=check_reduction(reduction) == "mean")
    return elementwise_average(term, prediction, target, kappa, channels, weight)


def elementwise_average(
    term: Term, prediction: Tensor, target: Tensor, kappa: float, channels: int | None, weight: Tensor | None
) -> Tensor:
    """A constraint without a criterion, 0-d, or [channels]."""
    if channels is not None and (prediction.dim() < 2 or prediction.shape[1] != channels):
        raise ValueError(f"prediction: got shape {tuple(prediction.shape)}, expected {channels} channels")
    if weight is not None:
        check_weight(weight, prediction, "prediction")
        division = Division(term.mean, per_channel=channels is not None)
        (weight,) = divided(weight, prediction, target, [division])
    if channels is None:
        return batch_average(term, [prediction], [target], kappa, [weight])
    weights = [None] * channels if weight is None else weight.expand_as(prediction).unbind(1)
    pairs = zip(prediction.unbind(1), target.unbind(1), weights, strict=True)
    return torch.stack([batch_average(term, [of_x_hat], [of_x], kappa, [w]) for of_x_hat, of_x, w in pairs])


def check_reduction(reduction: str) -> Reduction:
    """Over the elements of an example."""
    for known in get_args(Reduction):
        if reduction == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(f"reduction: got {reduction!r}, expected 'mean' or 'sum'")

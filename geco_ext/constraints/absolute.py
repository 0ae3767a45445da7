"""Absolute error, smooth around zero."""

from __future__ import annotations

from torch import Tensor

from geco_ext.checks import check_kappa_non_negative, check_positive, check_prediction
from geco_ext.constraints.reconstruction import ElementwiseConstraint, Reduction, check_reduction, elementwise_average
from geco_ext.contract import Term
from geco_ext.schedule import Kappa

SMALLEST_EPS = 1e-18  # an eps below counts as it: kernels square it in float32


class AbsoluteError(ElementwiseConstraint):
    """Absolute error between reconstruction and data (the Charbonnier loss).

    ``C = mean (or sum) over C, H, W of sqrt((x_hat - x)^2 + eps^2) - eps, minus kappa``. Identical images give exactly
    -kappa. Natural multiplier: D / kappa, the Laplace likelihood with b = kappa.

    Args:
        kappa: tolerated absolute error per element, in units of the data.
        eps: differences well below it count with their squares; above zero.
        reduction: ``"mean"`` or ``"sum"`` over the elements of an example.
        channels: one constraint per channel instead of one for the image, named ``name/0``, ``name/1``, ...
        name: key in ``metrics()``.

    Raises:
        ValueError: kappa is not above zero or not finite, eps is not above zero, reduction is unknown, channels < 1.

    Example:
        >>> import torch
        >>> x = torch.zeros(2, 1, 4, 4)
        >>> round(float(AbsoluteError(kappa=0.1)(x + 0.1, x)), 3)
        -0.001
    """

    def __init__(
        self,
        kappa: Kappa,
        eps: float = 1e-3,
        reduction: Reduction = "mean",
        channels: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(kappa, reduction, channels, name)
        self.eps = check_positive(eps, "eps")

    def forward(self, x_hat: Tensor, x: Tensor, labels: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """Batch average, 0-d ([channels] with ``channels``)."""
        self._check_alone(x_hat, x, labels)
        return absolute_error(
            x_hat, x, kappa=self.kappa, eps=self.eps, reduction=self.reduction, channels=self.channels, weight=weight
        )

    def _term(self) -> Term:
        eps = max(self.eps, SMALLEST_EPS)
        return Term("absolute_error", rows=self._rows, mean=self.reduction == "mean", eps=eps)


def absolute_error(
    prediction: Tensor,
    target: Tensor,
    *,
    kappa: float,
    eps: float = 1e-3,
    reduction: str = "mean",
    channels: int | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean (or sum) over an example of sqrt((prediction - target)^2 + eps^2) - eps, minus kappa.

    Args:
        prediction: [B, ...], any float type and strides.
        target: the same shape.
        kappa: tolerated absolute error, >= 0.
        eps: differences well below it count with their squares; above zero.
        reduction: ``"mean"`` or ``"sum"``.
        channels: the number of channels C of images [B, C, ...] to get one constraint per channel, [C].
        weight: bool or float >= 0, [B, 1, ...] or the same shape: the weighted mean (or sum) of an example, averaged
            over the examples with a weight above zero. Where it is zero, neither tensor matters and the gradient is
            zero. Weights get no gradient.

    Returns:
        The batch average, 0-d ([C] with ``channels``).

    Raises:
        ValueError: shapes or devices differ, an empty batch, kappa < 0, eps <= 0, an unknown reduction; weights of
            another shape, on the CPU negative or not finite ones (elsewhere they make the result NaN).
        TypeError: integer tensors.

    Example:
        >>> x = torch.zeros(2, 3, 4, 4)
        >>> round(float(absolute_error(x + 0.2, x, kappa=0.1)), 3)
        0.099
    """
    check_prediction(prediction, target, ("prediction", "target"))
    kappa = check_kappa_non_negative(kappa)
    eps = max(check_positive(eps, "eps"), SMALLEST_EPS)
    term = Term("absolute_error", mean=check_reduction(reduction) == "mean", eps=eps)
    return elementwise_average(term, prediction, target, kappa, channels, weight)

"""RE: reconstruction error."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from geco_ext import functional
from geco_ext.checks import check_positive_integer
from geco_ext.constraints.base import Constraint
from geco_ext.contract import Term

Reduction = Literal["mean", "sum"]


class ReconstructionError(Constraint):
    """Squared error between reconstruction and data (RE, Table 1 of "Taming VAEs").

    ``C = mean (or sum) over C, H, W of (x_hat - x)^2 - kappa^2``, satisfied when the root mean squared error per
    element is at most kappa.

    Args:
        kappa: tolerated root mean squared error, in units of the data.
        reduction: ``"mean"`` or ``"sum"`` over the elements of an example.
        channels: one constraint per channel instead of one for the image, named ``name/0``, ``name/1``, ...
        name: key in ``metrics()``.

    Raises:
        ValueError: kappa is negative or not finite, reduction is unknown, channels < 1.

    Example:
        >>> import torch
        >>> re = ReconstructionError(kappa=0.1)
        >>> x = torch.zeros(2, 1, 4, 4)
        >>> round(float(re(x + 0.1, x)), 6)
        0.0
    """

    def __init__(
        self, kappa: float, reduction: Reduction = "mean", channels: int | None = None, name: str | None = None
    ) -> None:
        super().__init__(kappa, name)
        if reduction not in get_args(Reduction):
            raise ValueError(f"reduction: got {reduction!r}, expected 'mean' or 'sum'")
        self.reduction: Reduction = reduction
        self.channels = None if channels is None else check_positive_integer(channels, "channels")
        self._rows = self.channels or 1
        self._checks_images = self.channels is not None
        self._term_tells = self.channels != 1  # one row is also that of all channels together

    def forward(self, x_hat: Tensor, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Batch average, 0-d ([channels] with ``channels``)."""
        self._check(x_hat, x)
        return functional.reconstruction_error(
            x_hat, x, kappa=self.kappa, reduction=self.reduction, channels=self.channels
        )

    def _row_names(self) -> list[str]:
        return [self.name] if self.channels is None else [f"{self.name}/{c}" for c in range(self.channels)]

    def _term(self) -> Term:
        return Term("squared_error", rows=self._rows, mean=self.reduction == "mean")

    def _check(self, x_hat: Tensor, x: Tensor) -> None:
        if self.channels is not None and (x_hat.dim() < 2 or x_hat.shape[1] != self.channels):
            raise ValueError(
                f"x_hat: got shape {tuple(x_hat.shape)}, expected {self.channels} channels (channels={self.channels})"
            )

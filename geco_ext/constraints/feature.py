"""FRE: feature reconstruction error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from geco_ext import functional
from geco_ext.constraints.base import ComparedPair
from geco_ext.constraints.frozen import NetworkConstraint
from geco_ext.contract import Term


class FeatureReconstructionError(NetworkConstraint):
    """Squared error between features of reconstruction and data (FRE, Table 1 of "Taming VAEs").

    ``C = mean over all feature elements of (f(x_hat) - f(x))^2 - kappa^2``; of several feature maps, the mean of
    their means. ``f(x)`` is computed without a gradient.

    Args:
        kappa: tolerated root mean squared error of a feature.
        extractor: images [B, C, H, W] -> features [B, ...], or a tuple of such. A module is frozen, kept in eval mode,
            moved by ``to()`` and left out of ``state_dict``.
        name: key in ``metrics()``.

    Raises:
        ValueError: kappa is negative or not finite; at the call, features whose first dimension is not B.

    Example:
        >>> import torch
        >>> pool = torch.nn.AvgPool2d(2)
        >>> x = torch.rand(2, 3, 8, 8)
        >>> round(float(FeatureReconstructionError(0.1, pool)(x, x)), 6)
        -0.01
    """

    def __init__(self, kappa: float, extractor: Callable[[Tensor], Any], name: str | None = None) -> None:
        super().__init__(kappa, extractor, "extractor", name)

    def forward(self, x_hat: Tensor, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Batch average, 0-d."""
        pairs = self._pairs(x_hat, x, labels)
        targets = [pair.target for pair in pairs if pair.target is not None]
        return functional.feature_reconstruction_error(
            tuple(pair.prediction for pair in pairs), tuple(targets), kappa=self.kappa
        )

    def _term(self) -> Term:
        return Term("squared_error", on_image=False)

    def _pairs(self, x_hat: Tensor, x: Tensor, labels: Tensor | None) -> list[ComparedPair]:
        features_hat = functional.feature_maps(self._look(x_hat), f"features of constraint {self.name!r}")
        with torch.no_grad():
            features = functional.feature_maps(self._look(x), f"features of constraint {self.name!r}")
        functional.check_feature_maps(features_hat, features, x_hat.shape[0])
        return [ComparedPair(*pair) for pair in zip(features_hat, features, strict=True)]

"""FRE: feature reconstruction error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from geco_ext.checks import check_kappa_non_negative, check_prediction
from geco_ext.constraints.base import ComparedPair, batch_average
from geco_ext.constraints.frozen import NetworkConstraint
from geco_ext.contract import Term
from geco_ext.schedule import Kappa


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
        ValueError: kappa is not above zero or not finite; at the call, features whose first dimension is not B.

    Example:
        >>> import torch
        >>> pool = torch.nn.AvgPool2d(2)
        >>> x = torch.rand(2, 3, 8, 8)
        >>> round(float(FeatureReconstructionError(0.1, pool)(x, x)), 6)
        -0.01
    """

    _zero_tolerance = 0.0

    def __init__(self, kappa: Kappa, extractor: Callable[[Tensor], Any], name: str | None = None) -> None:
        super().__init__(kappa, extractor, "extractor", name)

    def forward(self, x_hat: Tensor, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Batch average, 0-d."""
        pairs = self._pairs(x_hat, x, labels)
        targets = [pair.target for pair in pairs if pair.target is not None]
        return feature_reconstruction_error(tuple(pair.prediction for pair in pairs), tuple(targets), kappa=self.kappa)

    def _term(self) -> Term:
        return Term("squared_error", on_image=False)

    def _pairs(
        self, x_hat: Tensor, x: Tensor, labels: Tensor | None, weight: Tensor | None = None
    ) -> list[ComparedPair]:
        features_hat = _feature_maps(self._look(x_hat), f"features of constraint {self.name!r}")
        with torch.no_grad():
            features = _feature_maps(self._look(x), f"features of constraint {self.name!r}")
        _check_feature_maps(features_hat, features, x_hat.shape[0])
        return [ComparedPair(*pair) for pair in zip(features_hat, features, strict=True)]


def feature_reconstruction_error(
    prediction: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor], *, kappa: float
) -> Tensor:
    """Mean over feature elements of (f(x_hat) - f(x))^2, minus kappa^2 (FRE, Table 1).

    Args:
        prediction: features [B, ...] of the reconstruction, or a tuple of feature maps (a mean of their means).
        target: features of the data, the same shapes.
        kappa: tolerated root mean squared error of a feature, >= 0.

    Returns:
        The batch average, 0-d.

    Raises:
        ValueError: shapes, devices or the number of maps differ, an empty batch, kappa < 0.

    Example:
        >>> maps = (torch.zeros(2, 8), torch.zeros(2, 4, 3, 3))
        >>> round(float(feature_reconstruction_error(tuple(m + 1 for m in maps), maps, kappa=0.5)), 6)
        0.75
    """
    predictions, targets = _feature_maps(prediction, "prediction"), _feature_maps(target, "target")
    _check_feature_maps(predictions, targets, predictions[0].shape[0] if predictions[0].dim() else 0)
    term = Term("squared_error")
    return batch_average(term, predictions, targets, check_kappa_non_negative(kappa))


def _feature_maps(features: Any, name: str) -> list[Tensor]:
    """One feature map or several, as a list of float tensors."""
    maps = list(features) if isinstance(features, (tuple, list)) else [features]
    if not maps:
        raise ValueError(f"{name}: got an empty sequence, expected at least one feature map [B, ...]")
    for feature_map in maps:
        if not isinstance(feature_map, Tensor):
            raise TypeError(f"{name}: got {type(feature_map).__name__}, expected a tensor or a tuple of tensors")
    return maps


def _check_feature_maps(predictions: list[Tensor], targets: list[Tensor], batch: int) -> None:
    """As many maps on both sides, of the same shapes, [batch, ...]."""
    if len(predictions) != len(targets):
        raise ValueError(f"target: got {len(targets)} feature maps, expected {len(predictions)} as in prediction")
    for prediction, target in zip(predictions, targets, strict=True):
        check_prediction(prediction, target, ("features of x_hat", "features of x"))
        if prediction.shape[0] != batch:
            raise ValueError(f"features of x_hat: got shape {tuple(prediction.shape)}, expected [{batch}, ...]")

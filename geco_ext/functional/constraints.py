"""The constraints as functions: stateless, fused, differentiable.

Each takes a prediction and a target and returns the batch average of its constraint, 0-d, float32 (float64 for
float64): satisfied when at most zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from geco_ext import checks
from geco_ext.contract import IMAGE, Term
from geco_ext.ops.loss import lagrangian
from geco_ext.state import new_block, views


def reconstruction_error(
    prediction: Tensor, target: Tensor, *, kappa: float, reduction: str = "mean", channels: int | None = None
) -> Tensor:
    """Mean (or sum) over the elements of an example of (prediction - target)^2, minus kappa^2 (RE, Table 1).

    Args:
        prediction: [B, ...], any float type and strides.
        target: the same shape.
        kappa: tolerated root mean squared error, >= 0.
        reduction: ``"mean"`` or ``"sum"``.
        channels: the number of channels C of images [B, C, ...] to get one constraint per channel, [C].

    Returns:
        The batch average, 0-d ([C] with ``channels``).

    Raises:
        ValueError: shapes or devices differ, an empty batch, kappa < 0, an unknown reduction.
        TypeError: integer tensors.

    Example:
        >>> x = torch.zeros(2, 3, 4, 4)
        >>> round(float(reconstruction_error(x + 0.2, x, kappa=0.1)), 6)
        0.03
    """
    checks.check_prediction(prediction, target, ("prediction", "target"))
    kappa = checks.check_kappa_non_negative(kappa)
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction: got {reduction!r}, expected 'mean' or 'sum'")
    term = Term("squared_error", mean=reduction == "mean")
    if channels is None:
        return _evaluate(term, [prediction], [target], kappa)
    if prediction.dim() < 2 or prediction.shape[1] != channels:
        raise ValueError(f"prediction: got shape {tuple(prediction.shape)}, expected {channels} channels")
    pairs = zip(prediction.unbind(1), target.unbind(1), strict=True)
    return torch.stack([_evaluate(term, [of_x_hat], [of_x], kappa) for of_x_hat, of_x in pairs])


def patch_ncc(
    prediction: Tensor,
    target: Tensor,
    *,
    kappa: float,
    patch_size: int,
    stride: int = 1,
    eps: float = 1e-5,
    per_channel: bool = False,
) -> Tensor:
    """Kappa minus the mean correlation of whitened patches (pNCC, Table 1); see :class:`geco_ext.PatchNCC`.

    Args:
        prediction: images [B, C, H, W].
        target: the same shape.
        kappa: demanded average correlation, in (-1, 1].
        patch_size: side of a patch in pixels.
        stride: distance of neighbouring patches.
        eps: variance below which a patch counts as flat.
        per_channel: correlate each channel alone, then average.

    Returns:
        The batch average, 0-d.

    Raises:
        ValueError: as :class:`geco_ext.PatchNCC`.

    Example:
        >>> x = torch.rand(2, 3, 16, 16)
        >>> bool(patch_ncc(1 - x, x, kappa=0.9, patch_size=8) > 1)
        True
    """
    checks.check_images(prediction, target, ("prediction", "target"))
    term = Term(
        "patch_ncc",
        patch_size=checks.check_positive_integer(patch_size, "patch_size"),
        stride=checks.check_positive_integer(stride, "stride"),
        eps=checks.check_positive(eps, "eps"),
        per_channel=bool(per_channel),
    )
    checks.check_patch_fits(prediction, patch_size, "prediction")
    return _evaluate(term, [prediction], [target], checks.check_kappa_correlation(kappa))


def local_statistics(
    prediction: Tensor, target: Tensor, *, kappa: float, patch_size: int, stride: int = 1, eps: float = 1e-5
) -> Tensor:
    """Mean squared error of local means and standard deviations, minus kappa^2; see :class:`geco_ext.LocalStatistics`.

    Args:
        prediction: images [B, C, H, W].
        target: the same shape.
        kappa: tolerated root mean squared error of the statistics, >= 0.
        patch_size: side of a patch in pixels.
        stride: distance of neighbouring patches.
        eps: added to variances.

    Returns:
        The batch average, 0-d.

    Raises:
        ValueError: as :class:`geco_ext.LocalStatistics`.

    Example:
        >>> x = torch.rand(2, 3, 16, 16)
        >>> round(float(local_statistics(x + 0.2, x, kappa=0.1, patch_size=4)), 4)
        0.01
    """
    checks.check_images(prediction, target, ("prediction", "target"))
    term = Term(
        "local_statistics",
        patch_size=checks.check_positive_integer(patch_size, "patch_size"),
        stride=checks.check_positive_integer(stride, "stride"),
        eps=checks.check_positive(eps, "eps"),
    )
    checks.check_patch_fits(prediction, patch_size, "prediction")
    return _evaluate(term, [prediction], [target], checks.check_kappa_non_negative(kappa))


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
    predictions, targets = feature_maps(prediction, "prediction"), feature_maps(target, "target")
    check_feature_maps(predictions, targets, predictions[0].shape[0] if predictions[0].dim() else 0)
    term = Term("squared_error")
    return _evaluate(term, predictions, targets, checks.check_kappa_non_negative(kappa))


def classification_accuracy(
    prediction: Tensor, target: Tensor, *, kappa: float, from_logits: bool = True, gradient: str = "probability"
) -> Tensor:
    """Kappa minus the probability of the true class (CLA, Table 1).

    Args:
        prediction: class scores [B, classes] of the reconstructions.
        target: true labels, integers [B].
        kappa: demanded average probability, in [0, 1].
        from_logits: the scores are logits rather than probabilities.
        gradient: ``"probability"``, or ``"log_probability"``: see :class:`geco_ext.ClassificationAccuracy`.

    Returns:
        The batch average, 0-d.

    Raises:
        ValueError: scores that are not [B, classes]; labels that are not integers [B] in range; kappa outside [0, 1];
            an unknown gradient.

    Example:
        >>> logits = torch.tensor([[50.0, 0.0]])
        >>> round(float(classification_accuracy(logits, torch.tensor([0]), kappa=0.9)), 6)
        -0.1
    """
    batch = prediction.shape[0] if isinstance(prediction, Tensor) and prediction.dim() else 0
    checks.check_class_scores(prediction, batch, "prediction")
    if batch == 0:
        raise ValueError(f"prediction: got the empty shape {tuple(prediction.shape)}, expected at least one example")
    labels = checks.check_labels(target, prediction)
    log_gradient = checks.check_class_gradient(gradient) == "log_probability"
    term = Term("class_probability", from_logits=bool(from_logits), log_gradient=log_gradient)
    return _evaluate(term, [prediction], [labels], checks.check_kappa_probability(kappa))


def feature_maps(features: Any, name: str) -> list[Tensor]:
    """One feature map or several, as a list of float tensors."""
    maps = list(features) if isinstance(features, (tuple, list)) else [features]
    if not maps:
        raise ValueError(f"{name}: got an empty sequence, expected at least one feature map [B, ...]")
    for feature_map in maps:
        if not isinstance(feature_map, Tensor):
            raise TypeError(f"{name}: got {type(feature_map).__name__}, expected a tensor or a tuple of tensors")
    return maps


def check_feature_maps(predictions: list[Tensor], targets: list[Tensor], batch: int) -> None:
    """As many maps on both sides, of the same shapes, [batch, ...]."""
    if len(predictions) != len(targets):
        raise ValueError(f"target: got {len(targets)} feature maps, expected {len(predictions)} as in prediction")
    for prediction, target in zip(predictions, targets, strict=True):
        checks.check_prediction(prediction, target, ("features of x_hat", "features of x"))
        if prediction.shape[0] != batch:
            raise ValueError(f"features of x_hat: got shape {tuple(prediction.shape)}, expected [{batch}, ...]")


def _evaluate(term: Term, predictions: list[Tensor], targets: list[Tensor], kappa: float) -> Tensor:
    """The constraint vector of one term, with a multiplier of one and no kl: its batch average."""
    first = predictions[0]
    block = new_block(1, device=first.device)
    views(block).kappa.fill_(kappa)
    owners = (IMAGE,) * len(predictions)
    return lagrangian(predictions, targets, owners, None, block, str(term), first.shape[0], first[0].numel())

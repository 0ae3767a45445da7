"""Constraints on patches: normalized cross-correlation (pNCC) and local statistics."""

from __future__ import annotations

from torch import Tensor

from geco_ext.checks import (
    check_images,
    check_kappa_correlation,
    check_kappa_non_negative,
    check_patch_fits,
    check_positive,
    check_positive_integer,
)
from geco_ext.constraints.base import Constraint, batch_average
from geco_ext.contract import Term
from geco_ext.schedule import Kappa


class _PatchConstraint(Constraint):
    _checks_images = True

    def __init__(self, kappa: Kappa, patch_size: int, stride: int, eps: float, name: str | None) -> None:
        super().__init__(kappa, name)
        self.patch_size = check_positive_integer(patch_size, "patch_size")
        self.stride = check_positive_integer(stride, "stride")
        self.eps = check_positive(eps, "eps")

    def _check(self, x_hat: Tensor, x: Tensor) -> None:
        check_images(x_hat, x)
        check_patch_fits(x_hat, self.patch_size)

    def extra_repr(self) -> str:
        """Name, tolerance and geometry."""
        return f"{super().extra_repr()}, patch_size={self.patch_size}, stride={self.stride}"


class PatchNCC(_PatchConstraint):
    """Cross-correlation of whitened patches (pNCC, Table 1 of "Taming VAEs").

    ``C = mean over positions i of kappa - psi(x, i)^T psi(x_hat, i)`` with
    ``psi(x, i)^T psi(y, i) = (cov_i + eps) / sqrt((var_i(x) + eps) (var_i(y) + eps))``, mean, biased variance and
    covariance over the patch's pixels of all channels jointly. Identical patches, flat ones too, give exactly 1.

    Args:
        kappa: demanded average correlation, in (-1, 1).
        patch_size: side of a patch in pixels.
        stride: distance of neighbouring patches; positions are the fully contained ones.
        eps: variance below which a patch counts as flat, in squared units of the data.
        per_channel: correlate each channel alone, then average.
        name: key in ``metrics()``.

    Raises:
        ValueError: kappa outside (-1, 1), patch_size or stride < 1, eps <= 0; at the call, images that are not
            [B, C, H, W] or smaller than a patch.

    Example:
        >>> import torch
        >>> x = torch.rand(2, 3, 16, 16)
        >>> round(float(PatchNCC(kappa=0.9, patch_size=8)(x, x)), 6)
        -0.1
    """

    _zero_tolerance = 1.0

    def __init__(
        self,
        kappa: Kappa,
        patch_size: int,
        stride: int = 1,
        eps: float = 1e-5,
        per_channel: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(kappa, patch_size, stride, eps, name)
        self.per_channel = bool(per_channel)

    def forward(self, x_hat: Tensor, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Batch average, 0-d."""
        return patch_ncc(
            x_hat,
            x,
            kappa=self.kappa,
            patch_size=self.patch_size,
            stride=self.stride,
            eps=self.eps,
            per_channel=self.per_channel,
        )

    def _check_kappa(self, kappa: float) -> float:
        return check_kappa_correlation(kappa)

    def _term(self) -> Term:
        return Term(
            "patch_ncc",
            patch_size=self.patch_size,
            stride=self.stride,
            eps=self.eps,
            per_channel=self.per_channel,
        )


class LocalStatistics(_PatchConstraint):
    """Error of local means and standard deviations, the image statistics named under Table 1 as FRE features.

    ``C = mean over positions of [(m_hat - m)^2 + (d_hat - d)^2] / 2 - kappa^2`` with the patch mean m and
    ``d = sqrt(var + eps)``, over all channels jointly.

    Args:
        kappa: tolerated root mean squared error of the statistics, in units of the data.
        patch_size: side of a patch in pixels.
        stride: distance of neighbouring patches; positions are the fully contained ones.
        eps: added to variances, in squared units of the data.
        name: key in ``metrics()``.

    Raises:
        ValueError: kappa not above zero, patch_size or stride < 1, eps <= 0; at the call, images that are not
            [B, C, H, W] or smaller than a patch.

    Example:
        >>> import torch
        >>> x = torch.rand(2, 3, 16, 16)
        >>> round(float(LocalStatistics(kappa=0.1, patch_size=4)(x, x)), 6)
        -0.01
    """

    _zero_tolerance = 0.0

    def __init__(
        self, kappa: Kappa, patch_size: int, stride: int = 1, eps: float = 1e-5, name: str | None = None
    ) -> None:
        super().__init__(kappa, patch_size, stride, eps, name)

    def forward(self, x_hat: Tensor, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Batch average, 0-d."""
        return local_statistics(
            x_hat, x, kappa=self.kappa, patch_size=self.patch_size, stride=self.stride, eps=self.eps
        )

    def _term(self) -> Term:
        return Term("local_statistics", patch_size=self.patch_size, stride=self.stride, eps=self.eps)


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
    check_images(prediction, target, ("prediction", "target"))
    term = Term(
        "patch_ncc",
        patch_size=check_positive_integer(patch_size, "patch_size"),
        stride=check_positive_integer(stride, "stride"),
        eps=check_positive(eps, "eps"),
        per_channel=bool(per_channel),
    )
    check_patch_fits(prediction, patch_size, "prediction")
    return batch_average(term, [prediction], [target], check_kappa_correlation(kappa))


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
    check_images(prediction, target, ("prediction", "target"))
    term = Term(
        "local_statistics",
        patch_size=check_positive_integer(patch_size, "patch_size"),
        stride=check_positive_integer(stride, "stride"),
        eps=check_positive(eps, "eps"),
    )
    check_patch_fits(prediction, patch_size, "prediction")
    return batch_average(term, [prediction], [target], check_kappa_non_negative(kappa))

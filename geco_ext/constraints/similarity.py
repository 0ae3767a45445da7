"""Structural similarity (SSIM)."""

from __future__ import annotations

from torch import Tensor

from geco_ext.checks import (
    check_images,
    check_kappa_correlation,
    check_patch_fits,
    check_positive,
    check_positive_integer,
)
from geco_ext.constraints.base import Constraint, batch_average
from geco_ext.contract import Term
from geco_ext.schedule import Kappa


class StructuralSimilarity(Constraint):
    """Structural similarity (SSIM; Wang, Bovik, Sheikh and Simoncelli, 2004), in uniform windows.

    ``C = mean over positions and channels of kappa - SSIM``, every channel by itself, with
    ``SSIM = (2 m_hat m + C1) (2 cov + C2) / ((m_hat^2 + m^2 + C1) (var_hat + var + C2))`` of a window's means, biased
    variances and covariance, ``C1 = (0.01 data_range)^2`` and ``C2 = (0.03 data_range)^2``. SSIM is within [-1, 1], and
    is exactly 1 for identical images. For an odd ``patch_size`` at stride 1 its mean is that of scikit-image's
    ``structural_similarity`` with ``win_size=patch_size``, ``gaussian_weights=False`` and
    ``use_sample_covariance=False``.

    Args:
        kappa: demanded average similarity, in (-1, 1].
        patch_size: side of a window in pixels.
        stride: distance of neighbouring windows; positions are the fully contained ones.
        data_range: largest minus smallest number that images can have.
        name: key in ``metrics()``.

    Raises:
        ValueError: kappa outside (-1, 1], patch_size or stride < 1, data_range <= 0; at the call, images that are not
            [B, C, H, W] or smaller than a window.

    Example:
        >>> import torch
        >>> x = torch.rand(2, 3, 16, 16)
        >>> round(float(StructuralSimilarity(kappa=0.9)(x, x)), 6)
        -0.1
    """

    _checks_images = True

    _zero_tolerance = 1.0

    def __init__(
        self,
        kappa: Kappa,
        patch_size: int = 11,
        stride: int = 1,
        data_range: float = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(kappa, name)
        self.patch_size = check_positive_integer(patch_size, "patch_size")
        self.stride = check_positive_integer(stride, "stride")
        self.data_range = check_positive(data_range, "data_range")

    def forward(self, x_hat: Tensor, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Batch average, 0-d."""
        return structural_similarity(
            x_hat, x, kappa=self.kappa, patch_size=self.patch_size, stride=self.stride, data_range=self.data_range
        )

    def extra_repr(self) -> str:
        """Name, tolerance and geometry."""
        geometry = f"patch_size={self.patch_size}, stride={self.stride}, data_range={self.data_range:g}"
        return f"{super().extra_repr()}, {geometry}"

    def _check(self, x_hat: Tensor, x: Tensor) -> None:
        check_images(x_hat, x)
        check_patch_fits(x_hat, self.patch_size)

    def _check_kappa(self, kappa: float) -> float:
        return check_kappa_correlation(kappa)

    def _term(self) -> Term:
        return _term(self.patch_size, self.stride, self.data_range)


def structural_similarity(
    prediction: Tensor,
    target: Tensor,
    *,
    kappa: float,
    patch_size: int = 11,
    stride: int = 1,
    data_range: float = 1.0,
) -> Tensor:
    """Kappa minus the mean structural similarity (SSIM); see :class:`geco_ext.StructuralSimilarity`.

    Args:
        prediction: images [B, C, H, W].
        target: the same shape.
        kappa: demanded average similarity, in (-1, 1].
        patch_size: side of a window in pixels.
        stride: distance of neighbouring windows.
        data_range: largest minus smallest number that images can have.

    Returns:
        The batch average, 0-d.

    Raises:
        ValueError: as :class:`geco_ext.StructuralSimilarity`.

    Example:
        >>> x = torch.rand(2, 3, 16, 16)
        >>> bool(structural_similarity(1 - x, x, kappa=0.9) > 0.9)
        True
    """
    check_images(prediction, target, ("prediction", "target"))
    term = _term(
        check_positive_integer(patch_size, "patch_size"),
        check_positive_integer(stride, "stride"),
        check_positive(data_range, "data_range"),
    )
    check_patch_fits(prediction, patch_size, "prediction")
    return batch_average(term, [prediction], [target], check_kappa_correlation(kappa))


def _term(patch_size: int, stride: int, data_range: float) -> Term:
    """Kernels take C1 for ``eps``: C2 is nine times as much."""
    root = 0.01 * data_range
    c1 = min(max(root * root, 1e-300), 1e300)  # neither 0 nor infinite, whatever the range
    return Term("structural_similarity", patch_size=patch_size, stride=stride, eps=c1, per_channel=True)

"""A fully connected conditional RealNVP (Dinh et al. 2016, arXiv:1605.08803)."""

from typing import cast

import torch
from torch import Tensor, nn

from geco_ext.functional import affine_coupling

from .diagonal_gaussian import bounded

MAX_LOG_SCALE = 3.0
"""One coupling scales a latent by a factor between exp(-3) and exp(3), so no step of training overflows it."""


class AffineCoupling(nn.Module):
    """Scales and shifts one part of the latents by amounts computed from the other part and the features.

    With z = (z_1, z_2), z_1 the first latent // 2 entries (equations 7 and 8 of Dinh et al.):

        y_1 = z_1,    y_2 = z_2 * exp(s(z_1, h)) + t(z_1, h),    log |det dy/dz| = sum s(z_1, h)

    s and t are one fully connected network with ``layers`` hidden layers. The features h are projected on their own, so
    z may carry extra leading dimensions that h lacks. The layer starts as the identity.

    Args:
        latent: number of latents, at least 2.
        features: number of features h.
        hidden: width of the hidden layers.
        layers: number of hidden layers, at least 1.
    """

    def __init__(self, latent: int, features: int, hidden: int, layers: int = 1) -> None:
        super().__init__()
        self.kept = latent // 2
        self.from_latent = nn.Linear(self.kept, hidden)
        self.from_features = nn.Linear(features, hidden, bias=False)
        self.log_scale_and_shift = nn.Linear(hidden, 2 * (latent - self.kept))
        nn.init.zeros_(self.log_scale_and_shift.weight)
        nn.init.zeros_(self.log_scale_and_shift.bias)
        self.further_layers = nn.Sequential(
            *[layer for _ in range(layers - 1) for layer in (nn.Linear(hidden, hidden), nn.ReLU())]
        )

    def forward(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map z [..., B, latent] to y, same shape, and log |det dy/dz| [..., B]; features h are [B, features]."""
        return self._transformed(z, features, inverse=False)

    def inverse(self, y: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map y [..., B, latent] back to z, same shape, and log |det dz/dy| [..., B]."""
        return self._transformed(y, features, inverse=True)

    def _transformed(self, z: Tensor, features: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        kept, changed = z[..., : self.kept], z[..., self.kept :]
        log_scale, shift = self._scale_and_shift(kept, features)
        # The kernel sums over all but the first dimension; here each row has a determinant of its own. The usual
        # latents are rows already: a view more is a node more for autograd, of which tiny couplings feel each.
        parts = (changed, log_scale, shift)
        rows, log_scales, shifts = parts if z.dim() == 2 else [part.reshape(-1, part.shape[-1]) for part in parts]
        transformed, log_det = affine_coupling(rows, log_scales, shifts, inverse)
        if z.dim() != 2:
            transformed, log_det = transformed.view_as(changed), log_det.view(changed.shape[:-1])
        return torch.cat([kept, transformed], dim=-1), log_det

    def _scale_and_shift(self, kept: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.from_latent(kept) + self.from_features(features))
        outputs = self.log_scale_and_shift(self.further_layers(hidden)).to(kept.dtype)
        log_scale, shift = outputs.chunk(2, dim=-1)
        return bounded(log_scale, MAX_LOG_SCALE), shift


class CouplingFlow(nn.Module):
    """A chain of affine couplings; the latents are reversed between two of them, so the halves take turns.

    Args:
        latent: number of latents.
        features: number of features the flow is conditioned on.
        flows: number of couplings; 0 is the identity.
        hidden: width of each coupling's hidden layers.
        layers: number of hidden layers of each coupling.

    Example:
        >>> flow = CouplingFlow(latent=4, features=8, flows=3)
        >>> z, features = torch.randn(5, 4), torch.randn(5, 8)
        >>> y, log_det = flow(z, features)
        >>> torch.allclose(flow.inverse(y, features)[0], z, atol=1e-5)
        True
    """

    def __init__(self, latent: int, features: int, flows: int = 4, hidden: int = 128, layers: int = 1) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(AffineCoupling(latent, features, hidden, layers) for _ in range(flows))

    def forward(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map z [..., B, latent] to f(z), same shape, and log |det df/dz| [..., B]; features are [B, features]."""
        log_det = torch.zeros_like(z[..., 0])
        for index, coupling in enumerate(self._chain()):
            z, step = coupling(z if index == 0 else z.flip(-1), features)
            log_det = log_det + step
        return z, log_det

    def inverse(self, y: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map y [..., B, latent] back to f^-1(y), same shape, and log |det df^-1/dy| [..., B]; exact."""
        log_det = torch.zeros_like(y[..., 0])
        for index, coupling in reversed(list(enumerate(self._chain()))):
            y, step = coupling.inverse(y, features)
            y = y if index == 0 else y.flip(-1)
            log_det = log_det + step
        return y, log_det

    def _chain(self) -> list[AffineCoupling]:
        return [cast(AffineCoupling, coupling) for coupling in self.couplings]

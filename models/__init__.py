"""The papers' models: variational auto-encoders to be trained under constraints."""

from .nvp import NVPVAE
from .output import VariationalOutput

__all__ = ["NVPVAE", "VariationalOutput"]

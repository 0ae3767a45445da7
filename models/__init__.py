"""The papers' models: variational auto-encoders to be trained under constraints."""

from .convdraw import ConvDraw, ConvDrawOutput
from .nvp import NVPVAE
from .output import VariationalOutput

__all__ = ["NVPVAE", "ConvDraw", "ConvDrawOutput", "VariationalOutput"]

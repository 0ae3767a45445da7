"""Train variational auto-encoders under constraints (GECO, "Taming VAEs") with fused kernels.

Example:
    >>> import torch, geco_ext
    >>> criterion = geco_ext.GECOLoss([geco_ext.ReconstructionError(kappa=0.1)])
    >>> x_hat = torch.rand(4, 1, 8, 8, requires_grad=True)
    >>> criterion(x_hat, torch.rand(4, 1, 8, 8), kl=torch.ones(4)).backward()
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from geco_ext import functional
from geco_ext.constraints import (
    AbsoluteError,
    ClassificationAccuracy,
    Constraint,
    FeatureReconstructionError,
    LocalStatistics,
    PatchNCC,
    ReconstructionError,
    StructuralSimilarity,
)
from geco_ext.criterion import GECOLoss
from geco_ext.multiplier import MultiplierUpdate
from geco_ext.ops.dispatch import available_backends, use_backend

if TYPE_CHECKING:
    from geco_ext import data, models
    from geco_ext.training.run import load_run

try:
    __version__ = version("geco-ext")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

__all__ = [
    "AbsoluteError",
    "ClassificationAccuracy",
    "Constraint",
    "FeatureReconstructionError",
    "GECOLoss",
    "LocalStatistics",
    "MultiplierUpdate",
    "PatchNCC",
    "ReconstructionError",
    "StructuralSimilarity",
    "__version__",
    "available_backends",
    "data",
    "functional",
    "load_run",
    "models",
    "use_backend",
]

# Loaded when first asked for: `import geco_ext` must not need the extras that training does.
_LAZY = {"data": "geco_ext.data", "models": "geco_ext.models", "load_run": "geco_ext.training.run"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'geco_ext' has no attribute {name!r}")
    module = import_module(_LAZY[name])
    return getattr(module, name) if name == "load_run" else module

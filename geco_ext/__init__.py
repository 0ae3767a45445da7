"""Train variational auto-encoders under constraints (GECO, "Taming VAEs") with fused kernels.

Example:
    >>> import torch, geco_ext
    >>> criterion = geco_ext.GECOLoss([geco_ext.ReconstructionError(kappa=0.1)])
    >>> x_hat = torch.rand(4, 1, 8, 8, requires_grad=True)
    >>> criterion(x_hat, torch.rand(4, 1, 8, 8), kl=torch.ones(4)).backward()
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geco_ext import data, functional, models
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
    from geco_ext.schedule import KappaSchedule
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
    "KappaSchedule",
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

# Where names are looked up that lie in no module of their own name; constraints lie together.
_PLACES = {
    "GECOLoss": "criterion",
    "KappaSchedule": "schedule",
    "MultiplierUpdate": "multiplier",
    "available_backends": "ops.dispatch",
    "use_backend": "ops.dispatch",
    "load_run": "training.run",
}


def __getattr__(name: str) -> Any:
    """Everything is loaded when first asked for: `geco --help` needs no PyTorch, a criterion no Lightning."""
    if name in __all__ and name not in ("data", "functional", "models"):
        value = getattr(import_module(f"geco_ext.{_PLACES.get(name, 'constraints')}"), name)
        globals()[name] = value
        return value
    if name.startswith("_") or find_spec(f"geco_ext.{name}") is None:
        # The models are a folder beside this one until the package is installed.
        hint = f"; {__file__} is its source folder: run Python elsewhere, or pip install -e ."
        raise AttributeError(f"module 'geco_ext' has no attribute {name!r}{hint if name == 'models' else ''}")
    return import_module(f"geco_ext.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

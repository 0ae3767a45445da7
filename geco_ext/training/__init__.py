"""Training with Lightning: what `geco train` does, callable from Python as well.

The story of a run, from what is asked to what came of it:

- `settings`, `config`; `calls`, `own_code`, `models`, `constraints` and `objectives`: what is asked, and the objects
  made of its texts;
- `run_folder`, `moved` and `run`: where it is kept, its model and criterion, and how it is loaded again;
- `session`: a run put together from all of these, started or resumed;
- `batches`, `training_step`, `callbacks`, `loggers` and `trainer`: its steps, and what happens between them;
- `evaluation`, `remarks`, `report`, `tiles` and `pictures`: what it came to.

`classifier` and `classifier_checkpoint` train and keep the networks of the constraints CLA and FRE. The modules are
imported by name so that reading a run's settings does not pull in Lightning.

An objective of one's own is a subclass of :class:`geco_ext.GECOLoss` or of ``geco_ext.training.GaussianObjective``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geco_ext.training.objectives import GaussianObjective

__all__ = ["GaussianObjective"]


def __getattr__(name: str) -> Any:
    """Loaded when first asked for: settings are read without PyTorch."""
    if name in __all__:
        return getattr(import_module("geco_ext.training.objectives"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

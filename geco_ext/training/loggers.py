"""Where metrics go beside the run's own `metrics.csv`: one of Lightning's loggers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

LOGGERS: dict[str, Callable[[Path], Logger | bool]] = {
    "tensorboard": lambda folder: TensorBoardLogger(folder, name="tensorboard", version=""),
    "csv": lambda folder: CSVLogger(folder, name="csv"),  # a version for each start: one would delete the one before
    "wandb": lambda folder: WandbLogger(name=folder.name, project="geco", save_dir=folder),
    "none": lambda folder: False,
}
PACKAGES = ("tensorboard", "wandb")


def build_logger(name: str, folder: Path) -> Logger | bool:
    """The logger of a run in ``folder``; False for none.

    Raises:
        ValueError: its package is not installed.
    """
    if name in PACKAGES and not is_installed(name):
        raise ValueError(f"logger {name!r} needs the package {name}, which is not installed: pip install {name}")
    return LOGGERS[name](folder)


def log_hyperparameters(trainer: L.Trainer, values: Mapping[str, Any]) -> None:
    """Tell the loggers what is trained; before training starts, for then they write it to their files."""
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if logger.log_dir is not None:  # a file that is there, of a run that is resumed, would stay
            (Path(logger.log_dir) / "hparams.yaml").unlink(missing_ok=True)
        logger.log_hyperparams(dict(values))


def is_installed(package: str) -> bool:
    """Whether it can be imported."""
    return find_spec(package) is not None

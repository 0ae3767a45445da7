"""Where a run keeps what: configuration, checkpoints, the history of its metrics."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import geco_ext
from geco_ext.files import replaced_when_written
from geco_ext.training.config import write_config
from geco_ext.training.moved import found_again
from geco_ext.training.settings import TrainingSettings

History = dict[str, list[float]]
"""Values recorded during a run, by name."""

CHECKPOINT_KEYS = {"state_dict", "global_step", "optimizer_states", "random_state"}


@dataclass(frozen=True)
class RunConfiguration:
    """What is needed to build a run's model and criterion again.

    Attributes:
        settings: the run's settings.
        image_shape: (C, H, W) of its images.
        context_shape: (C', H, W) of its contexts, None for an unconditional model.
        examples: how many it is trained on; None in runs of earlier versions.
    """

    settings: TrainingSettings
    image_shape: tuple[int, ...]
    context_shape: tuple[int, ...] | None
    examples: int | None = None


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run: settings, checkpoints, the history of its metrics, TensorBoard's files, results."""

    path: Path

    @classmethod
    def holding(cls, path: Path) -> tuple[RunFolder, Path]:
        """The run folder and the checkpoint that a path means: a run folder, or one of its checkpoint files."""
        if path.suffix == ".ckpt":
            return cls(path.parent.parent), path
        return cls(path), cls(path).last_checkpoint

    @property
    def configuration_file(self) -> Path:
        """The settings the run was started with."""
        return self.path / "config.json"

    @property
    def checkpoint_folder(self) -> Path:
        """Holds ``last.ckpt`` and the periodic checkpoints."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self.checkpoint_folder / "last.ckpt"

    @property
    def metrics_file(self) -> Path:
        """The history of loss, RMSE, KL, constraints and multipliers."""
        return self.path / "metrics.csv"

    @property
    def held_out_file(self) -> Path:
        """The history of RMSE, KL and constraints on examples held out, at the checkpoints."""
        return self.path / "held_out.csv"

    @property
    def best_checkpoint(self) -> Path:
        """The best one on examples held out, where training may stop early."""
        return self.checkpoint_folder / "best.ckpt"

    def checkpoint_at(self, step: int) -> Path:
        """The periodic checkpoint of a step."""
        return self.checkpoint_folder / f"step_{step:08d}.ckpt"

    def periodic_checkpoints(self) -> list[Path]:
        """The periodic checkpoints there are, oldest first."""
        return sorted(self.checkpoint_folder.glob("step_*.ckpt"))

    def check_free(self) -> None:
        """Refuse a folder that already holds something.

        Raises:
            ValueError: the path is a file, or a folder with content.
        """
        if self.configuration_file.exists():
            raise ValueError(
                f"run folder {self.path} already holds a run; continue it with --resume {self.path}, "
                "remove it, or choose another --out"
            )
        if self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir())):
            raise ValueError(f"run folder {self.path} exists and is not empty; choose another --out")

    def create(self, configuration: RunConfiguration) -> None:
        """Make the folder and write the configuration into it.

        Raises:
            ValueError: it cannot be written to.
        """
        try:
            self.checkpoint_folder.mkdir(parents=True, exist_ok=True)
            self.write_configuration(configuration)
        except OSError as error:
            raise ValueError(f"run folder {self.path} cannot be written: {error.strerror or error}") from error

    def write_configuration(self, configuration: RunConfiguration) -> None:
        """Save the configuration, and its settings once more as `geco train --config` takes them."""
        content = {
            "geco_ext": geco_ext.__version__,
            "folder": str(self.path.resolve()),
            "image_shape": list(configuration.image_shape),
            "context_shape": None if configuration.context_shape is None else list(configuration.context_shape),
            "examples": configuration.examples,
            "settings": configuration.settings.as_dict(),
        }
        with replaced_when_written(self.configuration_file) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")
        write_config(self.path / "config.yaml", configuration.settings)

    def read_configuration(self) -> RunConfiguration:
        """The configuration the run was started with; files that were moved with it are found where they are now.

        Raises:
            FileNotFoundError: no run there.
            ValueError: the file is damaged.
        """
        if not self.configuration_file.is_file():
            below = sorted(map(str, (file.parent for file in self.path.glob(f"*/{self.configuration_file.name}"))))
            runs = f"; the runs in it are {', '.join(below)}" if below else ""
            raise FileNotFoundError(f"no run in {self.path}: expected {self.configuration_file}{runs}")
        try:
            content = json.loads(self.configuration_file.read_text())
            settings, now = TrainingSettings.from_dict(content["settings"]), self.path.resolve()
            return RunConfiguration(
                settings=found_again(settings, Path(content.get("folder", now)), now),
                image_shape=_shape(content["image_shape"]),
                context_shape=None if content["context_shape"] is None else _shape(content["context_shape"]),
                examples=content.get("examples"),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.configuration_file} is damaged: {error}") from error

    def check_writable(self) -> None:
        """Refuse a folder that cannot take another checkpoint.

        Raises:
            ValueError: it cannot be written to.
        """
        if not os.access(self.checkpoint_folder, os.W_OK):
            raise ValueError(f"run folder {self.path} cannot be written: {self.checkpoint_folder} is read-only")

    def read_checkpoint(self, file: Path) -> dict[str, Any]:
        """The tensors and numbers of a checkpoint, on the CPU.

        Only tensors and plain values are read, never code, so a checkpoint from elsewhere can do no harm.

        Raises:
            FileNotFoundError: no such checkpoint.
            ValueError: the file is truncated or is no checkpoint of `geco train`; the message names earlier ones.
        """
        if not file.is_file():
            raise FileNotFoundError(f"no checkpoint {file}{self._earlier_than(file)}")
        try:
            checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises a dozen types on damaged files, none of its own
            reason = str(error).strip().partition("\n")[0][:100] or type(error).__name__
            raise ValueError(
                f"checkpoint {file} is truncated or corrupt and cannot be read ({reason}){self._earlier_than(file)}"
            ) from error
        if not isinstance(checkpoint, dict) or not checkpoint.keys() >= CHECKPOINT_KEYS:
            raise ValueError(f"{file} is not a checkpoint of geco train{self._earlier_than(file)}")
        return checkpoint

    def _earlier_than(self, file: Path) -> str:
        others = [str(other) for other in self.periodic_checkpoints() if other.resolve() != file.resolve()]
        return f"; earlier checkpoints, which --resume takes as well: {', '.join(others)}" if others else ""


def _shape(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def read_history(file: Path) -> History:
    """Columns of a metrics file by name; empty where there is no file yet."""
    columns, rows = _read(file)
    return {name: [float(row[index]) for row in rows] for index, name in enumerate(columns)} if rows else {}


def _read(file: Path) -> tuple[list[str], list[list[str]]]:
    """Names of the columns, and the records as they were written."""
    if not file.is_file():
        return [], []
    with file.open(newline="") as lines:
        columns, *rows = list(csv.reader(lines)) or [[]]
    # A process killed while it wrote leaves half a line, which lacks its last columns.
    return columns, [row for row in rows if len(row) == len(columns)]


class MetricsHistory:
    """Appends records to a metrics file.

    Args:
        file: the CSV file.
        step: the step training starts from; records after it are dropped, they belong to steps that will come again.
    """

    def __init__(self, file: Path, step: int) -> None:
        self.file = file
        self.columns: list[str] | None = None
        columns, rows = _read(file)
        with replaced_when_written(file) as temporary, temporary.open("w", newline="") as lines:
            if rows:
                self.columns = columns
                at = columns.index("step")
                kept = [row for row in rows if float(row[at]) <= step]
                csv.writer(lines, lineterminator="\n").writerows([columns, *kept])
        self.lines = file.open("a", newline="")
        self.writer = csv.writer(self.lines, lineterminator="\n")

    def append(self, record: Mapping[str, float]) -> None:
        """Add one record; all records have the same names."""
        if self.columns is None:
            self.columns = list(record)
            self.writer.writerow(self.columns)
        self.writer.writerow([repr(record[name]) for name in self.columns])
        self.lines.flush()

    def close(self) -> None:
        """Close the file."""
        self.lines.close()

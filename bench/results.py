"""What was measured, as it is kept: a file for each instruction set (``results/cpu-avx2.json``), and for each card."""

from __future__ import annotations

import json
import math
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from footprint import copy_rate
from scenarios import Scenario
from timing import Timing, family

import geco_ext
from geco_ext.backends.native import extension


@dataclass(frozen=True)
class Row:
    """The times of a scenario's candidates on so many threads of a CPU, or on a GPU: none."""

    label: str
    threads: int
    in_readme: bool
    seconds: dict[str, float]  # medians
    times: dict[str, int]  # of how many they are the medians; ten or less: a form that was slow, or far behind
    won: dict[str, str]  # family -> its fastest form
    elements: int = 0  # of an image tensor
    launches: dict[str, int] = field(default_factory=dict)  # of a step on a GPU
    peak_bytes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        scenario: Scenario,
        threads: int,
        timings: Mapping[str, Timing],
        launches: Mapping[str, int] | None = None,
        peak_bytes: Mapping[str, int] | None = None,
    ) -> Row:
        seconds = {name: timing.seconds for name, timing in timings.items()}
        ordered = sorted((name for name in seconds if ": " in name), key=lambda name: -seconds[name])
        won = {family(name): name.split(": ")[1] for name in ordered}  # the fastest comes last
        times = {name: timing.times for name, timing in timings.items()}
        return cls(
            scenario.label,
            threads,
            scenario.in_readme,
            seconds,
            times,
            won,
            math.prod(scenario.shape),
            dict(launches or {}),
            dict(peak_bytes or {}),
        )

    def best(self, *families: str) -> float | None:
        """Seconds of the fastest form of these families; None where none takes part."""
        return min((s for name, s in self.seconds.items() if family(name) in families), default=None)

    def takes(self, *families: str, unit: str = "geco_ext") -> float | None:
        """How many times as long as ``unit``."""
        best = self.best(*families)
        return None if best is None else best / self.seconds[unit]


@dataclass(frozen=True)
class Result:
    """A run on one machine."""

    machine: dict[str, object]
    turn_seconds: float
    rows: list[Row]

    @property
    def of_gpu(self) -> bool:
        return "device" in self.machine

    def beside(self, older: Result) -> Result:
        """With the older rows of scenarios that were not measured again.

        Raises:
            ValueError: the older rows are of another machine, or of other versions.
        """
        varying = {"copy_rate_in_gigabytes"}
        if {k: v for k, v in self.machine.items() if k not in varying} != {
            k: v for k, v in older.machine.items() if k not in varying
        }:
            raise ValueError(f"rows of {self.machine} cannot stand beside those of {older.machine}")
        measured = {row.label for row in self.rows}
        return Result(
            older.machine, older.turn_seconds, [*self.rows, *(r for r in older.rows if r.label not in measured)]
        )

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Result:
        content = json.loads(path.read_text())
        return cls(content["machine"], content["turn_seconds"], [Row(**row) for row in content["rows"]])


_MAKES = ("nvidia", "geforce", "tesla", "quadro", "amd", "radeon", "instinct")


def card(device: str) -> str:
    """The short name of a card, from that its driver gives: h100, h200, a100, rtx4090."""
    words = re.split(r"[\s-]+", device.lower())
    words = [word for word in words if word not in _MAKES]
    ends = [i for i, word in enumerate(words) if re.search(r"\d", word)]  # what follows is memory, or a form
    name = "".join(words[: ends[0] + 1] if ends else words)
    return re.sub(r"[^a-z0-9]", "", name) or "gpu"


def machine(device: torch.device) -> dict[str, object]:
    """The processor, with the versions that ran on it."""
    if device.type == "cuda":
        return _gpu(device)
    return {
        "processor": _processor(),
        "instruction_set": extension()[0].cpu.capability(),
        "torch": torch.__version__,
        "geco_ext": geco_ext.__version__,
    }


def _gpu(device: torch.device) -> dict[str, object]:
    compiled = extension()[0]
    return {
        "device": torch.cuda.get_device_name(device),
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "triton": _triton(),
        "geco_ext": geco_ext.__version__,
        "compiled_architectures": compiled and compiled.cuda_architectures,
        "copy_rate_in_gigabytes": round(copy_rate(device) / 1e9),
    }


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return lines[0].strip() if lines else "unknown"


def _triton() -> str | None:
    try:
        import triton
    except ImportError:
        return None
    return str(triton.__version__)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()

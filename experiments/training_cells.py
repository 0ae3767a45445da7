"""Many trainings by `geco train`, several at a time, each taken up where a killed one stopped."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

PROGRAM = (sys.executable, "-m", "geco_ext")
POLL_EVERY = 0.5
"""Seconds between looks at what runs."""

PR_SET_PDEATHSIG = 1  # of Linux's prctl
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

Report = dict[str, Any]
"""What `geco train` writes to ``results.json``."""


@dataclass(frozen=True)
class TrainingCell:
    """One training of an experiment.

    Attributes:
        columns: what names it in the table of the experiment, and its run folder.
        arguments: those of `geco train` but ``--out``.
    """

    columns: dict[str, str]
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """The columns as one word.

        Example:
            >>> TrainingCell({"model": "nvp", "kappa": "0.1"}, ()).name
            'nvp-0.1'
        """
        return "-".join(value.replace("/", "_").replace(" ", "_") for value in self.columns.values())


@dataclass
class Running:
    """A training in a process of its own."""

    cell: TrainingCell
    folder: Path
    process: subprocess.Popen[bytes]
    started: float

    def steps(self) -> str:
        """The last step that it recorded."""
        file = self.folder / "metrics.csv"
        lines = file.read_text().splitlines() if file.is_file() else []
        return lines[-1].partition(",")[0].removesuffix(".0") if len(lines) > 1 else "0"


class TrainingCells:
    """Trains cells in run folders of their own.

    Args:
        folder: where the run folders and their logs are made.
        jobs: how many train at a time.
        report: is given a line for every training that starts, ends or fails.

    Raises:
        ValueError: fewer than one job.
    """

    def __init__(self, folder: Path, jobs: int, report: Callable[[str], None]) -> None:
        if jobs < 1:
            raise ValueError(f"jobs: got {jobs}, expected at least 1")
        self.folder = folder
        self.jobs = jobs
        self.report = report
        self.running: list[Running] = []

    def train(self, cells: Sequence[TrainingCell], finished: Callable[[TrainingCell, Report], None]) -> list[str]:
        """Train all cells; those of an earlier call that was killed go on from their last checkpoint.

        Args:
            cells: what to train, in this order.
            finished: is given each cell with its results, as soon as they are there.

        Returns:
            Names of the cells that failed; their logs say why.

        Raises:
            KeyboardInterrupt: on Ctrl-C, after every training has saved itself.
            SystemExit: on SIGTERM, likewise.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        waiting = list(cells)
        failed: list[str] = []
        # Trainings are processes of their own: one that outlived this would train beside the next call's in its folder.
        previous = signal.signal(signal.SIGTERM, _end)
        try:
            while waiting or self.running:
                while waiting and len(self.running) < self.jobs:
                    self.running.append(self._start(waiting.pop(0)))
                self._show(len(cells) - len(waiting) - len(self.running), len(cells))
                time.sleep(POLL_EVERY)
                for running in [r for r in self.running if r.process.poll() is not None]:
                    self.running.remove(running)
                    if not self._collect(running, finished):
                        failed.append(running.cell.name)
        finally:
            self._stop()
            signal.signal(signal.SIGTERM, previous)
        return failed

    def _start(self, cell: TrainingCell) -> Running:
        folder = self.folder / cell.name
        if (folder / "checkpoints" / "last.ckpt").is_file():
            arguments = ["train", "--resume", str(folder)]
        else:
            shutil.rmtree(folder, ignore_errors=True)  # of a training killed before its first checkpoint
            arguments = ["train", *cell.arguments, "--out", str(folder)]
        self.report(f"{cell.name}: {'goes on' if '--resume' in arguments else 'starts'}")
        with self._log(cell).open("wb") as log:
            # A session of its own: Ctrl-C reaches this process, which passes it on once.
            process = subprocess.Popen(
                [*PROGRAM, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=partial(_receive_interrupts, os.getpid()),
            )
        return Running(cell, folder, process, time.monotonic())

    def _collect(self, running: Running, finished: Callable[[TrainingCell, Report], None]) -> bool:
        name, seconds = running.cell.name, time.monotonic() - running.started
        results = running.folder / "results.json"
        if running.process.returncode or not results.is_file():
            lines = self._log(running.cell).read_text(errors="replace").strip().splitlines()
            self.report(f"{name}: failed: {lines[-1] if lines else f'exit code {running.process.returncode}'}")
            return False
        self.report(f"{name}: done, {seconds:.0f} s")
        finished(running.cell, json.loads(results.read_text()))
        return True

    def _log(self, cell: TrainingCell) -> Path:
        return self.folder / f"{cell.name}.log"

    def _show(self, done: int, of: int) -> None:
        if not sys.stderr.isatty():
            return
        states = ", ".join(f"{running.cell.name} at step {running.steps()}" for running in self.running)
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\033[K{f'{done} of {of} done; {states}'[:width]}", end="", file=sys.stderr, flush=True)

    def _stop(self) -> None:
        """Interrupt what still runs, as Ctrl-C would, and wait until it has saved itself."""
        for running in self.running:
            if running.process.poll() is None:
                os.kill(running.process.pid, signal.SIGINT)
        for running in self.running:
            running.process.wait()
        self.running.clear()


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _receive_interrupts(parent: int) -> None:
    """In a new training: be interrupted by Ctrl-C, and by the end of the experiment, however it comes.

    A shell that starts a command in the background lets it, and what it starts, ignore Ctrl-C.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if _LIBC is not None:  # where the parent is killed without a chance to say so, Linux sends the same
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # it was killed before
            os._exit(130)


def print_line(line: str) -> None:
    """A line on stderr, in place of one that shows the state."""
    print(f"\r\033[K{line}" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)

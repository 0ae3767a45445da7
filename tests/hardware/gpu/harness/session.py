"""A stage: its time, its folder of results, its log, the processes it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[4]
SECONDS = 450.0


class Session:
    """Time runs from the start; everything that is said or printed by a process is in ``<stage>.log`` at once."""

    def __init__(self, stage: str):
        self.folder = Path(os.environ.get("GPU_RESULTS") or ROOT / "build" / "gpu-results").resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.stage = stage
        self.only = os.environ.get("ONLY", "")
        self._started = time.monotonic()
        self._end = self._started + float(os.environ.get("GPU_SECONDS") or SECONDS)
        self._log = (self.folder / f"{stage}.log").open("w")
        self.left_out_some = False
        self._left_out = self.folder / "left-out.txt"
        self._forget_what_was_left_out()
        self._lock = threading.Lock()
        self._running: list[Process] = []

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._running:
            process.stop()
        self._log.close()

    def left(self) -> float:
        """Seconds until the stage has to be over."""
        return self._end - time.monotonic()

    def say(self, text: str) -> None:
        """On the screen and in the log, with the seconds since the start."""
        line = f"{time.monotonic() - self._started:6.1f} s  {text}"
        print(line, flush=True)
        self.log(line)

    def log(self, line: str) -> None:
        """In the log alone."""
        with self._lock:
            self._log.write(line + "\n")
            self._log.flush()

    def leave_out(self, what: str, why: str) -> None:
        """Say that something was not run, also in ``left-out.txt``."""
        self.left_out_some = True
        self.say(f"left out: {what} ({why})")
        with self._left_out.open("a") as file:
            file.write(f"gpu-{self.stage}: {what} ({why})\n")

    def _forget_what_was_left_out(self) -> None:
        if self._left_out.exists():
            lines = self._left_out.read_text().splitlines(keepends=True)
            self._left_out.write_text("".join(line for line in lines if not line.startswith(f"gpu-{self.stage}: ")))

    def start(
        self, name: str, command: Sequence[str | Path], seconds: float, environment: Mapping[str, str] | None = None
    ) -> Process:
        """A process that is stopped, with all that it started, after so many seconds."""
        process = Process(self, name, list(map(str, command)), seconds, environment or {})
        self._running.append(process)
        return process

    def python(
        self, name: str, arguments: Sequence[str | Path], seconds: float, environment: Mapping[str, str] | None = None
    ) -> Process:
        """The interpreter that runs this, with these arguments."""
        return self.start(name, [sys.executable, *arguments], seconds, environment)


class Process:
    """A running command. What it prints goes to the log line by line, and is kept."""

    def __init__(self, session: Session, name: str, command: list[str], seconds: float, environment: Mapping[str, str]):
        self.name, self.lines, self.was_stopped = name, list[str](), False
        self._session = session
        session.log(f"[{name}] $ {' '.join(command)}")
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._clock = threading.Timer(max(seconds, 1.0), self._out_of_time)
        self._clock.daemon = True
        self._clock.start()

    def wait(self) -> int:
        """Its exit status, negative where a signal ended it."""
        status = self._process.wait()
        self._clock.cancel()
        self._reader.join(timeout=5)
        return status

    def tail(self, count: int) -> str:
        """The last lines of what it printed."""
        return "\n".join(self.lines[-count:])

    def stop(self) -> None:
        """End it and what it started; nothing where it has ended."""
        self._clock.cancel()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _out_of_time(self) -> None:
        self.was_stopped = self._process.poll() is None
        self.stop()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
            self._session.log(f"[{self.name}] {self.lines[-1]}")

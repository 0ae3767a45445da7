"""A run that survives its processes: each row on a line of its own, written when it is measured."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from results import Result, Row


class Measured:
    """The file of a run: lines of what was started, measured, failed.

    A crash takes a process, not the run: the next one to open the file goes on behind the scenario that crashed.
    """

    def __init__(self, path: Path):
        self.path = path

    def begin(self, result: Result) -> None:
        """Say on which machine a process measures; what another has started and not ended counts as failed."""
        for label in self._started() - self.labels():
            self.fail(label, "its process ended, or was ended")
        self._append(machine=result.machine, turn_seconds=result.turn_seconds)

    def start(self, label: str) -> None:
        """From here on a crash is this scenario's."""
        self._append(started=label)

    def add(self, row: Row) -> None:
        """What was measured."""
        self._append(row=asdict(row))

    def fail(self, label: str, reason: str) -> None:
        """What was not."""
        self._append(failed=label, reason=reason)

    def labels(self) -> set[str]:
        """The scenarios that are done with."""
        return {row.label for row in self.rows()} | set(self.failures())

    def rows(self) -> list[Row]:
        """All that was measured."""
        return [Row(**line["row"]) for line in self._lines() if "row" in line]

    def failures(self) -> dict[str, str]:
        """Label -> reason."""
        return {line["failed"]: line["reason"] for line in self._lines() if "failed" in line}

    def result(self) -> Result:
        """The run so far.

        Raises:
            ValueError: nothing was measured.
        """
        machines = [line for line in self._lines() if "machine" in line]
        rows = self.rows()
        if not rows:
            raise ValueError(f"{self.path}: nothing was measured")
        return Result(machines[0]["machine"], machines[0]["turn_seconds"], rows)

    def _started(self) -> set[str]:
        return {line["started"] for line in self._lines() if "started" in line}

    def _lines(self) -> list[dict]:
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines() if line.endswith("}")]

    def _append(self, **content: object) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(content) + "\n")

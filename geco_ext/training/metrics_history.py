"""The history of a run: loss, RMSE, KL, constraints and multipliers against the step."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from geco_ext.files import replaced_when_written

History = dict[str, list[float]]


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

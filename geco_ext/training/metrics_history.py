"""The history of a run: loss, RMSE, KL, constraints and multipliers against the step."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from geco_ext.training.atomic_file import replaced_when_written

History = dict[str, list[float]]


def read_history(file: Path) -> History:
    """Columns of a metrics file by name; empty where there is no file yet."""
    if not file.is_file():
        return {}
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    # A process killed while it wrote leaves half a line, which lacks its last columns.
    whole = [row for row in rows if None not in row.values()]
    return {name: [float(row[name]) for row in whole] for name in (rows[0] if rows else {})}


class MetricsHistory:
    """Appends records to a metrics file.

    Args:
        file: the CSV file.
        step: the step training starts from; records after it are dropped, they belong to steps that will come again.
    """

    def __init__(self, file: Path, step: int) -> None:
        self.file = file
        self.columns: list[str] | None = None
        kept = read_history(file)
        with replaced_when_written(file) as temporary, temporary.open("w", newline="") as lines:
            if kept:
                self.columns = list(kept)
                writer = csv.writer(lines)
                writer.writerow(self.columns)
                writer.writerows(
                    row for row in zip(*kept.values(), strict=True) if row[self.columns.index("step")] <= step
                )
        self.lines = file.open("a", newline="")
        self.writer = csv.writer(self.lines)

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

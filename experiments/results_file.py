"""Rows of a study kept in a CSV file, so that an interrupted study goes on where it stopped."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from geco_ext.files import replaced_when_written


class HasColumns(Protocol):
    """A cell of a study."""

    @property
    def columns(self) -> dict[str, str]:
        """What names it, the key columns among them."""


class ResultsFile:
    """A CSV file of finished cells, each named by a few of its columns, and a Markdown table of the same beside it.

    Every write goes to a temporary name and is renamed, so the files are whole at any moment.

    Args:
        path: the CSV file; the Markdown table has the same name with the suffix ``.md``. Folders are created.
        key: the columns that name a cell; rows are kept sorted by them, numbers as numbers.

    Raises:
        ValueError: the file exists and is not one of a study with these columns.

    Example:
        >>> import tempfile
        >>> results = ResultsFile(Path(tempfile.mkdtemp()) / "study.csv", key=("kappa",))
        >>> results.add({"kappa": "0.1", "RMSE": "0.0995"})
        >>> results.has({"kappa": "0.1"}), results.has({"kappa": "0.2"})
        (True, False)
    """

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        self.path = path
        self.key = tuple(key)
        self.rows: list[dict[str, str]] = []
        if path.exists():
            self.rows = self._read()

    def has(self, cell: dict[str, str]) -> bool:
        """Whether a row with this cell's key columns is there."""
        return any(all(row[column] == cell[column] for column in self.key) for row in self.rows)

    def of(self, cells: Iterable[HasColumns]) -> list[dict[str, str]]:
        """The rows of these cells, as far as they are finished."""
        wanted = {tuple(cell.columns[column] for column in self.key) for cell in cells}
        return [row for row in self.rows if tuple(row[column] for column in self.key) in wanted]

    def add(self, row: dict[str, str]) -> None:
        """Put a row in its place and write all to disk.

        Raises:
            ValueError: the rows that are there have other columns.
        """
        if self.rows and set(self.rows[0]) != set(row):
            raise ValueError(f"{self.path} has other columns: {', '.join(self.rows[0])}, expected {', '.join(row)}")
        self.rows.append(row)
        self.rows.sort(key=lambda row: [number_or_text(row[column]) for column in self.key])
        self.save()

    def save(self) -> None:
        """Write all rows to disk, as they are now."""
        if not self.rows:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_when_written(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)

    def write_markdown(self, introduction: str, rows: Sequence[dict[str, str]] | None = None) -> None:
        """Write all rows, or these, as a Markdown table below the introduction."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_when_written(self.path.with_suffix(".md")) as temporary:
            temporary.write_text(f"{introduction}\n\n{markdown_table(self.rows if rows is None else rows)}\n")

    def _read(self) -> list[dict[str, str]]:
        try:
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"path: {self.path} is no CSV file: {error}") from error
        if any(column not in row for row in rows for column in self.key):
            raise ValueError(f"path: {self.path} is no file of this study, expected the columns {', '.join(self.key)}")
        for number, row in enumerate(rows, start=2):
            if None in row or None in row.values():
                raise ValueError(f"path: {self.path} is damaged: line {number} has not as many columns as the first")
        return rows


def number_or_text(value: str) -> tuple[float, str]:
    """A sort key: numbers by size, texts alphabetically after them."""
    try:
        return float(value), ""
    except ValueError:
        return math.inf, value


def markdown_table(rows: Iterable[dict[str, str]]) -> str:
    """Rows with the same columns as a Markdown table, columns aligned.

    Example:
        >>> print(markdown_table([{"kappa": "0.1", "met": "yes"}]))
        | kappa | met |
        |-------|-----|
        | 0.1   | yes |
    """
    rows = list(rows)
    columns = list(rows[0]) if rows else []
    widths = [max(len(column), *(len(row[column]) for row in rows)) for column in columns]
    lines = [columns, *([row[column] for column in columns] for row in rows)]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)

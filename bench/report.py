"""Tables from ``results/cpu.json``: ``python bench/report.py`` writes ``results/cpu.md`` and the project's README."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from results import Result, Row

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
RESULT, FULL_TABLE = HERE / "results" / "cpu.json", HERE / "results" / "cpu.md"
BEGIN, END = "<!-- benchmark table: python bench/ratios.py --write -->", "<!-- end of benchmark table -->"


def write_tables() -> None:
    """All tables that show the committed result."""
    result = Result.load(RESULT)
    FULL_TABLE.write_text(full_page(result))
    before, rest = README.read_text().split(BEGIN)
    README.write_text(before + BEGIN + "\n" + readme_table(result.rows) + "\n" + END + rest.split(END)[1])


def readme_table(rows: Iterable[Row]) -> str:
    """A row for each claim, on as many threads as there are."""
    rows = list(rows)
    threads = max(row.threads for row in rows)
    lines = [
        "| forward, backward, update | geco_ext, ms | eager takes | `torch.compile` takes | operator, step / floor |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.label} | {_milliseconds(row, 'geco_ext')} | {_times(row, 'eager')} | {_times(row, 'compile')} "
        f"| {_to_floor(row)} |"
        for row in rows
        if row.in_readme and row.threads == threads
    ]
    return "\n".join(lines)


def full_page(result: Result) -> str:
    """Every row, then every candidate's time."""
    machine = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in result.machine.items())
    parts = [
        "# All results on the CPU",
        f"Written by `python bench/ratios.py --write`; what the columns mean: [README](../README.md). {machine}; "
        f"turns of {result.turn_seconds * 1e3:g} ms.",
    ]
    for threads in sorted({row.threads for row in result.rows}, reverse=True):
        rows = [row for row in result.rows if row.threads == threads]
        parts += [f"## {threads} {'thread' if threads == 1 else 'threads'}", _ratio_table(rows)]
        parts += [
            "Every candidate, ms; in brackets those timed ten times or less: slow, or far behind.",
            _time_table(rows),
        ]
    return "\n\n".join(parts) + "\n"


def _ratio_table(rows: Iterable[Row]) -> str:
    lines = [
        "| forward, backward, update | geco_ext, ms | eager takes | `torch.compile` takes "
        "| handmade takes, eager, compiled | reference takes | operator, step / floor |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        eager, compiled, *handmade = (
            _times(row, name, form=True) for name in ("eager", "compile", "handmade eager", "handmade compile")
        )
        lines.append(
            f"| {row.label} | {_milliseconds(row, 'geco_ext')} | {eager} | {compiled} "
            f"| {'-' if handmade == ['-', '-'] else ', '.join(handmade)} | {_times(row, 'reference')} "
            f"| {_to_floor(row)} |"
        )
    return "\n".join(lines)


def _time_table(rows: Iterable[Row]) -> str:
    lines = ["| | ms |", "|---|---|"]
    for row in rows:
        times = [
            f"{name} {_milliseconds(row, name)}" if row.times[name] > 10 else f"({name} {_milliseconds(row, name)})"
            for name in row.seconds
        ]
        lines.append(f"| {row.label} | {', '.join(times)} |")
    return "\n".join(lines)


def _milliseconds(row: Row, name: str) -> str:
    milliseconds = row.seconds[name] * 1e3
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"


def _times(row: Row, family: str, form: bool = False) -> str:
    ratio = row.takes(family)
    if ratio is None:
        return "-"
    return f"{ratio:.2f}x" + (f" ({row.won[family]})" if form and family in row.won else "")


def _to_floor(row: Row) -> str:
    """Only where the floor is traffic: where images are small a call is Python."""
    if row.seconds["floor"] < 2e-5:
        return "-"
    return f"{row.takes('operator', unit='floor'):.2f}x, {row.takes('geco_ext', unit='floor'):.2f}x"


if __name__ == "__main__":
    write_tables()

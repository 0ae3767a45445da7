"""Tables and plots from ``results/*.json``.

``python bench/report.py`` writes ``results/*.md``, ``results/*.svg`` and the tables of the project's README.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bars import place
from plots import plot
from results import Result, Row

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"


@dataclass(frozen=True)
class Report:
    """Where a device's result is kept and shown."""

    name: str
    title: str
    begin: str
    end: str
    table: Callable[[list[Row]], str]

    @property
    def result(self) -> Path:
        return HERE / "results" / f"{self.name}.json"

    def write(self) -> None:
        """Everything that shows the committed result; nothing where there is none."""
        if not self.result.exists():
            return
        result = Result.load(self.result)
        self.result.with_suffix(".md").write_text(full_page(result, self.title))
        plot(result, self.result.with_suffix(".svg"))
        before, rest = README.read_text().split(self.begin)
        README.write_text(
            before + self.begin + "\n" + self.table(result.rows) + "\n" + self.end + rest.split(self.end)[1]
        )


def write_tables() -> None:
    """All tables and plots that show a committed result."""
    for report in REPORTS.values():
        report.write()


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


def gpu_readme_table(rows: Iterable[Row]) -> str:
    """A row for each claim: what others take, what is launched, and how much memory a step needs for a while."""
    lines = [
        "| forward, backward, update | geco_ext, ms | eager takes | `torch.compile` takes | with `.item()` takes "
        "| Triton takes | launches, eager's | peak memory, eager's | step / floor |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.label} | {_milliseconds(row, 'geco_ext')} | {_times(row, 'eager')} | {_times(row, 'compile')} "
        f"| {_times(row, 'item')} | {_times(row, 'triton')} | {_beside_eager(row, row.launches, str)} "
        f"| {_beside_eager(row, row.peak_bytes, _mebibytes)} | {_step_to_floor(row)} |"
        for row in rows
        if row.in_readme
    ]
    return "\n".join(lines)


def full_page(result: Result, title: str) -> str:
    """Every row, then every candidate's time."""
    machine = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in result.machine.items())
    parts = [
        f"# {title}",
        f"Written by `python bench/ratios.py --write`; what the columns mean: [README](../README.md). {machine}; "
        f"turns of {result.turn_seconds * 1e3:g} ms.",
    ]
    for threads in sorted({row.threads for row in result.rows}, reverse=True):
        rows = [row for row in result.rows if row.threads == threads]
        parts += [f"## {place(threads)}", _ratio_table(rows)]
        parts += [
            "Every candidate, ms; in brackets those timed ten times or less: slow, or far behind.",
            _time_table(rows),
        ]
        if any(row.launches or row.peak_bytes for row in rows):
            parts += ["Launches and peak memory of a step.", _footprint_table(rows)]
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


def _footprint_table(rows: Iterable[Row]) -> str:
    lines = ["| | launches | peak memory |", "|---|---|---|"]
    for row in rows:
        launches = ", ".join(f"{name} {count}" for name, count in row.launches.items())
        peaks = ", ".join(f"{name} {_mebibytes(count)}" for name, count in row.peak_bytes.items())
        lines.append(f"| {row.label} | {launches or '-'} | {peaks or '-'} |")
    return "\n".join(lines)


def _beside_eager(row: Row, counts: dict[str, int], shown: Callable[[int], str]) -> str:
    """Ours and those of the fastest eager form."""
    eager = f"eager: {row.won.get('eager')}"
    return f"{shown(counts['geco_ext'])}, {shown(counts[eager])}" if {"geco_ext", eager} <= counts.keys() else "-"


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.3g} MiB"


def _step_to_floor(row: Row) -> str:
    return "-" if row.seconds["floor"] < 2e-5 else f"{row.takes('geco_ext', unit='floor'):.2f}x"


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


REPORTS = {
    "cpu": Report(
        "cpu",
        "All results on the CPU",
        "<!-- benchmark table: python bench/ratios.py --write -->",
        "<!-- end of benchmark table -->",
        readme_table,
    ),
    "cuda": Report(
        "gpu",
        "All results on a GPU",
        "<!-- GPU benchmark table: make gpu -->",
        "<!-- end of GPU benchmark table -->",
        gpu_readme_table,
    ),
}

if __name__ == "__main__":
    write_tables()

"""Tables and plots from ``results/*.json``.

``python bench/report.py`` writes ``results/*.md``, ``results/*.svg`` and the tables of the project's README; with
``--rows FILE`` it first keeps what a run of ``ratios.py --rows FILE`` measured.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bars import judge, place
from measured import Measured
from plots import plot
from results import Result, Row, card

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
CPU_MARKS = "<!-- benchmark table: python bench/ratios.py --write -->", "<!-- end of benchmark table -->"
GPU_MARKS = "<!-- GPU benchmark tables: make gpu-bench -->", "<!-- end of GPU benchmark tables -->"


@dataclass(frozen=True)
class Report:
    """Where the result of a machine is kept and shown: of processors with an instruction set, or of a card."""

    name: str

    @property
    def result(self) -> Path:
        return HERE / "results" / f"{self.name}.json"

    @property
    def files(self) -> list[Path]:
        return [path for suffix in (".json", ".md", ".svg") if (path := self.result.with_suffix(suffix)).exists()]

    def keep(self, result: Result) -> None:
        """Commit to a result, and show it."""
        result.save(self.result)
        self.write()
        write_readme()

    def write(self) -> None:
        """The page and the plot."""
        result = Result.load(self.result)
        place = f"an {result.machine['device']}" if result.of_gpu else f"a CPU with {_set_of(result)}"
        title = f"All results on {place}"
        self.result.with_suffix(".md").write_text(full_page(result, title))
        plot(result, self.result.with_suffix(".svg"))


def report_of(result: Result) -> Report:
    """By what was measured on."""
    machine = result.machine
    return Report(card(str(machine["device"])) if result.of_gpu else f"cpu-{machine['instruction_set']}")


def write_tables() -> None:
    """All tables and plots that show a committed result."""
    for path in _committed():
        Report(path.stem).write()
    write_readme()


def write_readme() -> None:
    """A table for each kind of processor and each card; where nothing is measured yet, nothing changes."""
    results = [Result.load(path) for path in _committed()]
    cpus = [f"With {_set_of(r)} ({_processor_line(r)}):\n\n{readme_table(r.rows)}" for r in results if not r.of_gpu]
    gpus = [f"On an {_machine_line(r)}:\n\n{gpu_readme_table(r.rows)}" for r in results if r.of_gpu]
    for (begin, end), tables in (
        (CPU_MARKS, cpus),
        (GPU_MARKS, gpus),
    ):
        text = README.read_text()
        if tables and begin in text:
            before, rest = text.split(begin)
            README.write_text(before + begin + "\n" + "\n\n".join(tables) + "\n" + end + rest.split(end)[1])


def _committed() -> list[Path]:
    return sorted((HERE / "results").glob("*.json"))


def _set_of(result: Result) -> str:
    """The instruction set, as one writes it."""
    name = str(result.machine["instruction_set"])
    return {"avx2": "AVX2", "avx512": "AVX-512"}.get(name, name)


def _processor_line(result: Result) -> str:
    return f"{result.machine['processor']}, PyTorch {result.machine['torch']}"


def _machine_line(result: Result) -> str:
    machine = result.machine
    return (
        f"{machine['device']} (CUDA {machine['cuda']}, PyTorch {machine['torch']}, Triton {machine['triton']}; "
        f"a copy moves {machine['copy_rate_in_gigabytes']} GB/s)"
    )


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, metavar="PATH", help="what ratios.py --rows wrote")
    parser.add_argument("--add", action="store_true", help="to the committed rows of this machine, not in their place")
    parser.add_argument("--copy", type=Path, metavar="FOLDER", help="of the files that show the rows")
    arguments = parser.parse_args()
    if arguments.rows is None:
        write_tables()
        return
    try:
        result = Measured(arguments.rows).result()
    except ValueError as error:
        sys.exit(str(error))
    print("\n".join(judge(result.rows)[0]))
    report = report_of(result)
    if arguments.add and report.result.exists():
        result = result.beside(Result.load(report.result))
    report.keep(result)
    if arguments.copy:
        for path in report.files:
            shutil.copy(path, arguments.copy)


if __name__ == "__main__":
    main()

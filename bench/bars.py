"""The speeds this project has promised itself: ``python bench/bars.py [result.json]`` says which a result shows.

``ratios.py`` ends with the same lines.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from results import Result, Row

Ratio = Callable[[Row], float | None]


@dataclass(frozen=True)
class Bar:
    """A number of one row: at least (a speed-up) or at most (a multiple of the floor) so much, and what it aims at."""

    label: str
    claim: str
    ratio: Ratio
    bar: float
    aim: float
    at_most: bool = False
    unit: str = "x"

    def verdict(self, value: float) -> str:
        """Whether the bar and the aim are reached."""
        reached = [value <= limit if self.at_most else value >= limit for limit in (self.bar, self.aim)]
        return "pass, aim reached" if all(reached) else "pass" if reached[0] else "MISS"

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        return f"{self.label}, {self.claim} {sign} {self.bar:g}{self.unit}, aim {self.aim:g}{self.unit}"


def _eager(row: Row) -> float | None:
    return row.takes("eager")


def _compiled(row: Row) -> float | None:
    return row.takes("compile")


def _operator_to_floor(row: Row) -> float | None:
    return row.takes("operator", unit="floor")


def _step_to_floor(row: Row) -> float | None:
    return row.takes("geco_ext", unit="floor")


_RE, _NCC = "RE, 16x3x256x256", "RE + pNCC 8, 16x3x256x256"
_NCC_MEDIUM = "RE + pNCC 8, 64x3x64x64"

BARS = (
    Bar(_RE, "operator / floor", _operator_to_floor, 1.10, 0.9, at_most=True),
    Bar(_RE, "eager takes", _eager, 4.5, 5.0),
    Bar(_RE, "torch.compile takes", _compiled, 2.3, 2.8),
    Bar(_NCC_MEDIUM, "eager takes", _eager, 20.0, 35.0),
    Bar(_NCC_MEDIUM, "torch.compile takes", _compiled, 9.0, 16.0),
    Bar(_NCC, "operator / floor", _operator_to_floor, 8.0, 4.5, at_most=True),
    Bar(_NCC, "step / floor", _step_to_floor, 8.0, 4.5, at_most=True),
    Bar("RE, 1x1x8x8", "eager takes", _eager, 2.0, 3.0),
    Bar("RE + pNCC 4, 1x1x8x8", "eager takes", _eager, 2.0, 3.0),
)


def _of_the_copy_rate(row: Row) -> float | None:
    """Two images read, one written, against a copy of one: float32."""
    return row.takes("copy") and 1.5 * row.takes("copy")


def _launches(row: Row) -> float | None:
    return row.launches.get("geco_ext")


def _fused_ssim(row: Row) -> float | None:
    return row.takes("fused_ssim")


def _triton(row: Row) -> float | None:
    """Its speed as a share of that of the backend a GPU gets."""
    ratio = row.takes("triton")
    return None if ratio is None else 1 / ratio


_STREAM, _HUGE = "RE, 64x1x1024x1024", "RE + pNCC 8, 16x3x1024x1024"
_ALL_SMALL = "RE + pNCC 4 + pNCC 8 + local statistics 8, 64x3x32x32"

GPU_BARS = (
    Bar(_STREAM, "share of the copy rate", _of_the_copy_rate, 0.85, 0.92),
    Bar(_STREAM, "eager takes", _eager, 2.0, 2.3),
    Bar(_STREAM, "torch.compile takes", _compiled, 1.5, 1.66),
    Bar(_ALL_SMALL, "eager takes", _eager, 8.0, 15.0),
    Bar(_ALL_SMALL, "launches", _launches, 3, 3, at_most=True, unit=""),
    Bar(_HUGE, "launches", _launches, 3, 3, at_most=True, unit=""),
    Bar(_HUGE, "eager takes", _eager, 10.0, 15.0),
    Bar(_HUGE, "torch.compile takes", _compiled, 3.0, 6.0),
    Bar("pNCC 11, per channel, 16x3x1024x1024", "fused-ssim takes", _fused_ssim, 1.5, 3.0),
    Bar(_STREAM, "Triton's speed", _triton, 0.9, 1.0),
    Bar(_HUGE, "Triton's speed", _triton, 0.3, 0.6),
)


def judge(rows: Iterable[Row]) -> tuple[list[str], bool]:
    """A line for every bar on every number of threads measured, and whether all measured ones are passed."""
    rows = list(rows)
    lines = []
    for threads in sorted({row.threads for row in rows}):
        of_label = {row.label: row for row in rows if row.threads == threads}
        lines += [place(threads)]
        bars = BARS if threads else GPU_BARS
        lines += [f"{_shown(bar, of_label.get(bar.label)):30}{bar}" for bar in bars]
        lines += _against_reference(list(of_label.values()))
    return lines, not any("MISS" in line for line in lines)


def place(threads: int) -> str:
    """Where a row was measured, in words."""
    return "GPU" if threads == 0 else f"{threads} {'thread' if threads == 1 else 'threads'}"


def _shown(bar: Bar, row: Row | None) -> str:
    value = None if row is None else bar.ratio(row)
    return "       - not measured" if value is None else f"{value:7.2f}{bar.unit} {bar.verdict(value)}"


def _against_reference(rows: list[Row]) -> list[str]:
    """The closest row, or all that are slower than the reference backend."""
    ratios = sorted((row.takes("reference"), row.label) for row in rows)
    shown = [pair for pair in ratios if pair[0] < 1] or ratios[:1]
    return [
        f"{f'{ratio:7.2f}x ' + ('MISS' if ratio < 1 else 'pass'):30}{label}, reference takes >= 1x"
        for ratio, label in shown
    ]


if __name__ == "__main__":
    default = Path(__file__).resolve().parent / "results" / "cpu-avx512.json"
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    report, met = judge(Result.load(path).rows)
    print("\n".join(report))
    sys.exit(0 if met else 1)

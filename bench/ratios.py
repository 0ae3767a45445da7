"""The comparison that is committed: candidates in turns in one process, medians, ratios.

Interleaving lets every candidate see the same machine: a slow second is slow for all of them, and the ratio stays.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from scenarios import SCENARIOS, Scenario

import geco_ext

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- benchmark table: python bench/ratios.py --write -->", "<!-- end of benchmark table -->"


def measure(scenario: Scenario, seconds: float, turn_seconds: float) -> dict[str, float]:
    """Median seconds of one call of each candidate."""
    candidates = scenario.candidates()
    for step in candidates.values():
        for _ in range(10):
            step()
    # Candidates take turns. Long turns show each in a steady state of its own (caches and allocator change hands with
    # every turn, and the median leaves those first calls out), short ones show it among others; bench/README.md has
    # both. The shortest calls are timed in groups, so that reading the clock does not count.
    durations = {name: _seconds(step, 10) for name, step in candidates.items()}
    group = {name: max(1, round(2e-4 / duration)) for name, duration in durations.items()}
    turn = {name: max(1, round(turn_seconds / (durations[name] * group[name]))) for name in candidates}
    times: dict[str, list[float]] = {name: [] for name in candidates}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, step in candidates.items():
            times[name] += [_seconds(step, group[name]) for _ in range(turn[name])]
    return {name: statistics.median(values) for name, values in times.items()}


def _seconds(step, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - start) / calls


def table(rows: list[dict]) -> str:
    lines = [
        "| forward, backward, update | geco_ext, ms | eager takes | `torch.compile` takes | operator, step / floor |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        times = row["seconds"]
        ours, floor = times["geco_ext"], times["floor"]
        shape = "x".join(map(str, row["shape"]))
        # Where the images are small a call is Python, not traffic.
        share = f"{times['operator'] / floor:.2f}x, {ours / floor:.2f}x" if row["shape"][-1] >= 64 else "-"
        lines.append(
            f"| {row['name']}, {shape} | {ours * 1e3:.3f} | {times['eager'] / ours:.2f}x "
            f"| {times['compile'] / ours:.2f}x | {share} |"
        )
    return "\n".join(lines)


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="measuring time of a scenario")
    parser.add_argument("--turn", type=float, default=0.02, help="seconds a candidate runs before the next one does")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true", help="keep the result: bench/results and the README's table")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for scenario in SCENARIOS:
        seconds = measure(scenario, arguments.seconds, arguments.turn)
        rows.append({"name": scenario.name, "shape": scenario.shape, "seconds": seconds})
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    result = {
        "processor": processor(),
        "threads": arguments.threads,
        "turn_seconds": arguments.turn,
        "torch": torch.__version__,
        "geco_ext": geco_ext.__version__,
        "instruction_set": geco_ext.backends.native.extension()[0].cpu.capability(),
        "rows": rows,
    }
    if arguments.write:
        (HERE / "results" / "cpu.json").write_text(json.dumps(result, indent=1) + "\n")
        before, rest = README.read_text().split(BEGIN)
        README.write_text(before + BEGIN + "\n" + table(rows) + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()

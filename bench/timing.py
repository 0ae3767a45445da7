"""Median times of candidates that take turns in one process.

Interleaving lets every candidate see the same machine: a slow second is slow for all of them, and the ratio stays.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

Call = Callable[[], object]

GROUP_SECONDS = {"cpu": 2e-4, "cuda": 5e-3}  # the clock is read, and the GPU waited for, this often
SLOW = 0.3  # seconds of a call above which three calls have to do
BEHIND = 1.5  # a form that takes so many times as long as the best of its family leaves its turns to the others


class Timing(NamedTuple):
    """Median seconds of a call, and how many times the median is of."""

    seconds: float
    times: int


def family(name: str) -> str:
    """Of a candidate named "family: form"."""
    return name.split(": ")[0]


def measure(calls: Mapping[str, Call], seconds: float, turn_seconds: float, device: torch.device) -> dict[str, Timing]:
    """Try every candidate a few times, then let all that matter take turns for so many seconds."""
    tried = {name: _try(call, device) for name, call in calls.items()}
    fastest = {name: min(times) for name, times in tried.items()}
    best = {family(name): min(f for n, f in fastest.items() if family(n) == family(name)) for name in calls}
    staying = [name for name in calls if fastest[name] <= min(SLOW, BEHIND * best[family(name)])]
    times = tried | _in_turns({name: calls[name] for name in staying}, fastest, seconds, turn_seconds, device)
    return {name: Timing(statistics.median(values), len(values)) for name, values in times.items()}


def _in_turns(
    calls: Mapping[str, Call], fastest: Mapping[str, float], seconds: float, turn_seconds: float, device: torch.device
) -> dict[str, list[float]]:
    # Long turns show each candidate in a steady state of its own (caches and allocator change hands with every turn,
    # and the median leaves those first calls out), short ones show it among others; bench/README.md has both. The
    # shortest calls are timed in groups, so that reading the clock does not count.
    group = {name: max(1, round(GROUP_SECONDS[device.type] / fastest[name])) for name in calls}
    turn = {name: max(1, round(turn_seconds / (fastest[name] * group[name]))) for name in calls}
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and calls:
        for name, call in calls.items():
            times[name] += [_seconds(call, group[name], device) for _ in range(turn[name])]
    return times


def _try(call: Call, device: torch.device) -> list[float]:
    """Three calls of a slow candidate, ten of any other; the first of these shows which it is."""
    times = [_seconds(call, 1, device)]
    while len(times) < 3 or (len(times) < 10 and sum(times) < SLOW):
        times.append(_seconds(call, 1, device))
    return times


def _seconds(call: Call, calls: int, device: torch.device) -> float:
    _synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    _synchronize(device)
    return (time.perf_counter() - start) / calls


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

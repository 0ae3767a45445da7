"""What a call launches on a GPU and how much memory it needs while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

Call = Callable[[], object]


def launches(calls: Mapping[str, Call], device: torch.device) -> dict[str, int]:
    """Kernels, copies and fills of one call of each; nothing on the CPU, or where the profiler sees none."""
    if device.type != "cuda":
        return {}
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for name, call in calls.items():
            with torch.profiler.record_function(f"candidate {name}"):
                call()
                torch.cuda.synchronize(device)
            time.sleep(1e-3)  # so that the two clocks may differ a little
    return count_launches([(e.name, e.device_type, e.time_range.start, e.time_range.end) for e in profile.events()])


def count_launches(events: list[tuple[str, object, float, float]]) -> dict[str, int]:
    """Of events (name, device, start, end): how many of a GPU's begin within each candidate's range on the host."""
    on_gpu = torch.autograd.DeviceType.CUDA
    starts = [start for name, device, start, _ in events if device == on_gpu and not name.startswith("candidate ")]
    ranges = {
        name.removeprefix("candidate "): (start, end)
        for name, device, start, end in events
        if device != on_gpu and name.startswith("candidate ")
    }
    return {name: sum(first <= s <= last for s in starts) for name, (first, last) in ranges.items()} if starts else {}


def peak_bytes(calls: Mapping[str, Call], device: torch.device) -> dict[str, int]:
    """Memory allocated above what was there before a call, at its peak; gradients of the call before are freed."""
    if device.type != "cuda":
        return {}
    peaks = {}
    for name, call in calls.items():
        for tensor in (getattr(call, "x_hat", None), getattr(call, "kl", None)):
            if tensor is not None:
                tensor.grad = None
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        peaks[name] = torch.cuda.max_memory_allocated(device) - before
    return peaks


def copy_rate(device: torch.device) -> float:
    """Bytes a second of the best of some copies of 256 MiB, read and written."""
    source, target = (torch.zeros(1 << 26, device=device) for _ in range(2))
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    milliseconds = []
    for _ in range(20):
        start.record()
        target.copy_(source)
        end.record()
        torch.cuda.synchronize(device)
        milliseconds.append(start.elapsed_time(end))
    return 2 * source.nbytes / (min(milliseconds) / 1e3)

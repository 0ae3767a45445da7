"""One of the steps whose kernels decide the speed on a GPU, by itself: for profilers, and its times.

python bench/hot_steps.py windows                  # the step's time, then that of each of its kernels
ncu --profile-from-start off --set full python bench/hot_steps.py windows --profiled
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from candidates import own_step
from scenarios import GPU_SCENARIOS

LABELS = {
    "re": "RE, 64x1x1024x1024",
    "windows": "RE + pNCC 8, 16x3x1024x1024",
    "per_channel": "pNCC 11, per channel, 16x3x1024x1024",
    "small": "RE + pNCC 4 + pNCC 8 + local statistics 8, 64x3x32x32",
}
WARM_UP, STEPS, ROUNDS = 5, 20, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=LABELS)
    parser.add_argument("--profiled", action="store_true", help="one step between the marks that a profiler looks for")
    arguments = parser.parse_args()
    device = torch.device("cuda", torch.cuda.current_device())
    scenario = next(scenario for scenario in GPU_SCENARIOS if scenario.label == LABELS[arguments.step])
    step = own_step(scenario, device)
    for _ in range(WARM_UP):
        step()
    torch.cuda.synchronize(device)
    if arguments.profiled:
        torch.cuda.profiler.start()
        step()
        torch.cuda.synchronize(device)
        torch.cuda.profiler.stop()
        return
    print(f"{scenario.label}: {min(_microseconds(step, device) for _ in range(ROUNDS)):.1f} us a step")
    for line in _kernels(step, device):
        print(line)


def _microseconds(step: Callable[[], object], device: torch.device) -> float:
    """Of a step among others, by the clock of the GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(STEPS):
        step()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) * 1e3 / STEPS


def _kernels(step: Callable[[], object], device: torch.device) -> list[str]:
    """Microseconds and number of each kernel, copy and fill of a step."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(STEPS):
            step()
        torch.cuda.synchronize(device)
    times: dict[str, list[float]] = {}
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            times.setdefault(event.name, []).append(event.time_range.elapsed_us())
    if not times:
        return ["the profiler sees no kernels here"]
    return [
        f"  {sum(each) / STEPS:9.2f} us a step in {len(each) / STEPS:g} of {name}"
        for name, each in sorted(times.items(), key=lambda item: -sum(item[1]))
    ]


if __name__ == "__main__":
    main()

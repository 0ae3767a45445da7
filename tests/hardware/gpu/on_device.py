"""What the tests of this folder share. Where there is no GPU they rehearse on the CPU: the same steps, nothing captured
and nothing counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from geco_ext import GECOLoss, LocalStatistics, PatchNCC, ReconstructionError

CONSTRAINTS = {
    "errors": lambda: [ReconstructionError(0.1), ReconstructionError(0.2, channels=3, name="channel")],
    "windows": lambda: [ReconstructionError(0.1), PatchNCC(0.9, 4), LocalStatistics(0.1, 3, stride=2)],
}


class TrainingStep:
    """A model of a scale and a shift for each channel, its optimiser and a criterion: one call, one step."""

    def __init__(self, kind: str, device: torch.device, shape: tuple[int, ...] = (2, 3, 12, 11), seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.rand(shape, generator=generator).to(device)
        self.criterion = GECOLoss(CONSTRAINTS[kind]()).to(device)
        self.model = nn.ParameterDict(
            {
                "scale": torch.full((1, shape[1], 1, 1), 0.5, device=device),
                "shift": torch.zeros(1, shape[1], 1, 1, device=device),
            }
        )
        on_gpu = device.type == "cuda"
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01, capturable=on_gpu)

    def loss(self) -> torch.Tensor:
        x_hat = self.x * self.model["scale"] + self.model["shift"]
        kl = self.model["scale"].square().sum().expand(len(self.x))
        return self.criterion(x_hat, self.x, kl)

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        self.optimizer.step()

    def state(self) -> list[torch.Tensor]:
        """Copies of all that a step moves."""
        return [self.criterion._block.clone(), *(p.detach().clone() for p in self.model.values())]


def captured(step: Callable[[], object], device: torch.device, warm_up: int) -> Callable[[], object]:
    """A call that replays a CUDA graph of ``step``, after so many ordinary steps; on the CPU ``step`` itself."""
    if device.type != "cuda":
        for _ in range(warm_up):
            step()
        return step
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(warm_up):
            step()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def streams(device: torch.device, count: int) -> list:
    """Contexts in which work goes to a stream of its own."""
    if device.type != "cuda":
        return [nullcontext() for _ in range(count)]
    made = [torch.cuda.Stream(device) for _ in range(count)]
    for stream in made:
        stream.wait_stream(torch.cuda.current_stream(device))
    return [torch.cuda.stream(stream) for stream in made]


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def never_waiting(device: torch.device) -> Iterator[None]:
    """PyTorch raises where a call waits for the GPU."""
    if device.type != "cuda":
        yield
        return
    synchronize(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def launches(call: Callable[[], object]) -> list[str]:
    """Names of all that a call has a GPU do: kernels, copies, fills."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]


def assert_same(first: list[torch.Tensor], second: list[torch.Tensor]) -> None:
    """The same numbers, wherever they are; NaN (a bound that nobody gave) is like NaN."""
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a.cpu(), b.cpu(), rtol=0, atol=0, equal_nan=True)

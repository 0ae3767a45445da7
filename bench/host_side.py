"""What the host does in a small step on the cuda backend: on any machine with g++, the kernels left out, or on a GPU.

python bench/host_side.py                        # compiles the extension for it first, a minute
python bench/host_side.py --extension PATH       # one that is compiled already (--keep PATH)
python bench/host_side.py --device cuda          # on a GPU, launches and all

Without a GPU tensors lie in host memory and a launch does nothing (tests/hardware/cuda/shim.h). In turns, in one
process: a step on the path of all calls, the same as one call into the extension, and two things of PyTorch's own:

- nothing: an autograd Function that computes nothing and returns no gradients;
- plain: a module whose Function computes nothing either, but allocates what any fused loss has to return, the loss and
  the gradients of both inputs, and hands them on, so that they become ``.grad``. It is PyTorch's share of a step:
  `nothing` has no module, no allocations of gradients, and nothing for AccumulateGrad, which no loss can avoid.

What a GPU adds: the launches themselves, its allocator, two questions for the current stream, and backward on a thread
of its own, which PyTorch has for each device. There, `mse` is a step of F.mse_loss and kl, with no constraint at all,
and times are those of the clock; the GPU is done with these sizes long before the host is.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
SHAPES = [(1, 1, 8, 8), (64, 3, 32, 32)]
CALLS = 50  # of a turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extension", type=Path, metavar="PATH")
    parser.add_argument("--keep", type=Path, metavar="PATH", help="where to leave the extension that was compiled")
    parser.add_argument("--seconds", type=float, default=6.0, help="measuring time of a row")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if device.type == "cpu":
            name = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
            use(arguments.extension or compiled(Path(folder), arguments.keep or Path(folder) / name))
        print("microseconds, median (beyond plain, beyond nothing); lowest of all turns in brackets")
        for shape in SHAPES:
            for constraints in ("errors", "windows"):
                for call in ("training", "evaluation", "no_grad"):
                    print(row(shape, constraints, call, device, arguments.seconds), flush=True)


def row(shape: tuple[int, ...], constraints: str, call: str, device: torch.device, seconds: float) -> str:
    """One line of the table."""
    paths = ("general", "one call")
    calls = {path: step(shape, constraints, call, device, path) for path in paths}
    own = {"nothing": nothing(shape, call, device), "plain": plain(shape, call, device)}
    if device.type == "cuda":
        own["mse"] = squared_error(shape, call, device)
    turns = in_turns(calls | own, device, seconds)
    times = {name: statistics.median(values) for name, values in turns.items()}
    shown = ", ".join(
        f"{path} {times[path]:.1f} ({times[path] - times['plain']:.1f}, {times[path] - times['nothing']:.1f}) "
        f"[{min(turns[path]):.1f} ({min(turns[path]) - min(turns['plain']):.1f})]"
        for path in paths
    )
    label = f"{'x'.join(map(str, shape))}, {constraints}, {call}"
    return f"{label:<34} {shown}; " + ", ".join(f"{name} {times[name]:.1f} [{min(turns[name]):.1f}]" for name in own)


def in_turns(calls: dict[str, Callable[[], None]], device: torch.device, seconds: float) -> dict[str, list[float]]:
    """Microseconds of a call, of every turn.

    Without a GPU the time of this thread alone, so that others on the machine matter less; with one, backward is on
    another thread.
    """
    clock = time.perf_counter if device.type == "cuda" else time.thread_time
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, call in calls.items():
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = clock()
            for _ in range(CALLS):
                call()
            times[name].append((clock() - start) / CALLS * 1e6)
    return times


def step(shape: tuple[int, ...], constraints: str, call: str, device: torch.device, path: str) -> Callable[[], None]:
    """The criterion's call, and backward in two of the three."""
    from geco_ext import GECOLoss, LocalStatistics, PatchNCC, ReconstructionError

    members = [ReconstructionError(0.1)]
    if constraints == "windows":
        members += [PatchNCC(0.9, 8), LocalStatistics(0.1, 8)]
    loss, arguments = GECOLoss(members).to(device), images(shape, device)
    loss(*arguments)
    loss.train(call == "training")
    loss._takes_image_step = path == "one call"

    def run() -> None:
        run_through(lambda: loss(*arguments), arguments, call)

    return run


def nothing(shape: tuple[int, ...], call: str, device: torch.device) -> Callable[[], None]:
    """What PyTorch takes for a Function of two inputs, forward and backward, that computes nothing."""
    arguments = images(shape, device)
    loss = torch.zeros((), device=device)

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x_hat: torch.Tensor, kl: torch.Tensor) -> torch.Tensor:
            return loss.new_empty(())

        @staticmethod
        def backward(ctx: Any, *incoming: Any) -> Any:
            return None, None

    x_hat, _, kl = arguments
    return lambda: run_through(lambda: Nothing.apply(x_hat, kl), arguments, call)


def plain(shape: tuple[int, ...], call: str, device: torch.device) -> Callable[[], None]:
    """What PyTorch takes for a module whose Function allocates its loss and gradients, and hands those on."""
    arguments = images(shape, device)

    class Plain(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x_hat: torch.Tensor, kl: torch.Tensor) -> torch.Tensor:
            if call != "no_grad":
                ctx.gradients = torch.empty_like(x_hat), torch.empty_like(kl)
            return kl.new_empty(())

        @staticmethod
        def backward(ctx: Any, *incoming: Any) -> Any:
            gradients, ctx.gradients = ctx.gradients, None
            return gradients

    class Module(torch.nn.Module):
        def forward(self, x_hat: torch.Tensor, x: torch.Tensor, kl: torch.Tensor) -> torch.Tensor:
            return Plain.apply(x_hat, kl)

    module = Module()
    return lambda: run_through(lambda: module(*arguments), arguments, call)


def squared_error(shape: tuple[int, ...], call: str, device: torch.device) -> Callable[[], None]:
    """The least that PyTorch's own operators take."""
    x_hat, x, kl = arguments = images(shape, device)
    return lambda: run_through(lambda: torch.nn.functional.mse_loss(x_hat, x) + kl.mean(), arguments, call)


def run_through(make_loss: Callable[[], torch.Tensor], arguments: list[torch.Tensor], call: str) -> None:
    """A loss, and its gradients where they are wanted, into nothing."""
    if call == "no_grad":
        with torch.no_grad():
            make_loss()
        return
    arguments[0].grad = arguments[2].grad = None
    make_loss().backward()


def images(shape: tuple[int, ...], device: torch.device) -> list[torch.Tensor]:
    """x_hat, x, kl."""
    x_hat, x, kl = (torch.rand(size, device=device) for size in (shape, shape, shape[:1]))
    return [x_hat.requires_grad_(), x, kl.requires_grad_()]


def use(extension: Path) -> None:
    """Tensors in host memory are the cuda backend's from here on."""
    os.environ["GECO_EXT_SHIM_EXTENSION"] = str(extension)
    sys.path.insert(0, str(ROOT / "tests/hardware/cuda"))
    import cuda_through_shim  # noqa: F401

    from geco_ext.ops import dispatch

    dispatch._PREFERENCE["cpu"] = ("cuda", "reference")


def compiled(folder: Path, extension: Path) -> Path:
    """The extension with CUDA kernels as C++ that are never run."""
    import pybind11

    csrc = ROOT / "csrc"
    sources = [path for path in csrc.rglob("*") if path.suffix in (".cpp", ".cu")]
    flags = ["-std=c++17", "-O3", "-DNDEBUG", "-fPIC", "-fno-strict-aliasing", "-fvisibility=hidden", "-DGECO_CUDA"]
    flags += ['-DGECO_CUDA_TENSORS="is_cpu"', '-DGECO_CUDA_ARCHITECTURES="90"', '-DGECO_CUDA_VERSION="none"']
    flags += ["-DSHIM_LEAVES_OUT_KERNELS", f"-I{csrc}", f"-I{ROOT / 'tests/hardware/cuda'}"]
    flags += [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.parent.name}_{source.name}.o"
        subprocess.run(["g++", *flags, "-x", "c++", "-c", str(source), "-o", str(target)], check=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as compilers:
        objects = list(compilers.map(compile_one, sources))
    subprocess.run(["g++", "-shared", "-pthread", *map(str, objects), "-o", str(extension)], check=True)
    return extension


if __name__ == "__main__":
    main()

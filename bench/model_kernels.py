"""The fused kernels of models against plain PyTorch: forward and backward, in turns in one process.

python bench/model_kernels.py                         # on the screen
python bench/model_kernels.py --only gates --threads 1
python bench/model_kernels.py --device cuda           # on a GPU
python bench/model_kernels.py --write                 # on an idle machine: results/model_kernels.md
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from results import machine
from timing import measure
from torch import Tensor

from geco_ext import functional as gf

Outputs = tuple[Tensor, Tensor]
Function = Callable[..., Outputs]

PAGE = Path(__file__).parent / "results" / "model_kernels.md"
TOLERANCE = 1e-5  # of the norm of an output or gradient, in float32
BARS = {"eager": 2.0, "torch.compile": 1.2}  # times as fast, at a million numbers


class Case(NamedTuple):
    """What is computed, and how the same is written in plain PyTorch."""

    label: str
    ours: Function
    plain: Function
    shapes: list[tuple[int, ...]]
    has_noise: bool = False
    channels_last: bool = False

    @property
    def is_large(self) -> bool:
        """Whether the bars apply."""
        return math.prod(self.shapes[-1]) >= 1 << 20


class Row(NamedTuple):
    """Median seconds of a case."""

    case: Case
    threads: int
    seconds: dict[str, float]

    def times(self, candidate: str) -> float:
        """How many times as long the candidate takes."""
        return self.seconds[candidate] / self.seconds["geco_ext"]


def plain_gaussian(q_mean: Tensor, q_log_std: Tensor, p_mean: Tensor, p_log_std: Tensor, noise: Tensor) -> Outputs:
    """With a learned prior."""
    log_ratio, distance = q_log_std - p_log_std, (q_mean - p_mean) * (-p_log_std).exp()
    kl = 0.5 * ((2 * log_ratio).exp() + distance.square() - 1) - log_ratio
    return torch.addcmul(q_mean, q_log_std.exp(), noise), kl.flatten(1).sum(1)


def plain_standard_gaussian(q_mean: Tensor, q_log_std: Tensor, noise: Tensor) -> Outputs:
    """With the standard normal for a prior."""
    std = q_log_std.exp()
    kl = 0.5 * (std.square() + q_mean.square() - 1) - q_log_std
    return torch.addcmul(q_mean, std, noise), kl.flatten(1).sum(1)


def plain_gates(gates: Tensor, cell: Tensor) -> Outputs:
    """As in every convolutional LSTM."""
    i, f, g, o = gates.chunk(4, dim=1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def plain_coupling(x: Tensor, log_scale: Tensor, shift: Tensor) -> Outputs:
    """As in every coupling flow."""
    return torch.addcmul(shift, x, log_scale.exp()), log_scale.flatten(1).sum(1)


def plain_inverse_coupling(x: Tensor, log_scale: Tensor, shift: Tensor) -> Outputs:
    """Its inverse."""
    return (x - shift) * (-log_scale).exp(), -log_scale.flatten(1).sum(1)


def standard_gaussian(q_mean: Tensor, q_log_std: Tensor, noise: Tensor) -> Outputs:
    """Ours, without a prior."""
    return gf.gaussian_rsample_kl(q_mean, q_log_std, noise=noise)


def cases() -> list[Case]:
    """A million numbers of each, feature maps also channels_last, and the latents of a small model."""
    inverse = partial(gf.affine_coupling, inverse=True)
    made = []
    for shape in ((64, 16384), (128, 24)):
        made += [
            Case("Gaussian, learned prior", gf.gaussian_rsample_kl, plain_gaussian, [shape] * 5, has_noise=True),
            Case("Gaussian, standard prior", standard_gaussian, plain_standard_gaussian, [shape] * 3, has_noise=True),
            Case("coupling", gf.affine_coupling, plain_coupling, [shape] * 3),
            Case("coupling, inverse", inverse, plain_inverse_coupling, [shape] * 3),
        ]
    made.append(Case("LSTM gates", gf.lstm_gates, plain_gates, [(64, 256, 16, 16), (64, 64, 16, 16)]))
    made.append(made[-1]._replace(label="LSTM gates, channels_last", channels_last=True))
    made.append(Case("LSTM gates", gf.lstm_gates, plain_gates, [(128, 128), (128, 32)]))
    return made


def compare(case: Case, seconds: float, turn_seconds: float, device: torch.device) -> Row:
    """All candidates on the threads that PyTorch uses now, after they were found to agree."""
    torch._dynamo.reset()
    functions = {"geco_ext": case.ours, "eager": case.plain, "torch.compile": torch.compile(case.plain, dynamic=False)}
    inputs = _inputs(case, device)
    weights = [torch.randn_like(output) for output in case.ours(*inputs)]
    calls = {name: partial(_forward_and_backward, function, inputs, weights) for name, function in functions.items()}
    doubles = [tensor.detach().double().requires_grad_(tensor.requires_grad) for tensor in inputs]
    exact = _forward_and_backward(case.plain, doubles, [weight.double() for weight in weights])
    for name, call in calls.items():
        for k, (found, wanted) in enumerate(zip(call(), exact, strict=True)):
            gap = float((found - wanted).norm() / wanted.norm())
            assert gap <= TOLERANCE, f"{case.label}, {name}: result {k} is off by {gap:.1e}, over {TOLERANCE:.0e}"
    timings = measure(calls, seconds, turn_seconds, device)
    return Row(case, torch.get_num_threads(), {name: timing.seconds for name, timing in timings.items()})


def page(rows: list[Row], turn_seconds: float) -> str:
    """The table."""
    of = machine(torch.device("cpu"))
    lines = [
        "# Fused kernels of the models",
        "",
        "Made by `python bench/model_kernels.py --write`: forward and backward in float32, medians in microseconds of",
        f"candidates in turns of {turn_seconds:g} s; in brackets, how many times as long as `geco_ext`.",
        f"{of['processor']} ({of['instruction_set']}), torch {of['torch']}, geco_ext {of['geco_ext']}.",
        "",
        "| kernel | shape | threads | geco_ext | eager | torch.compile |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(_line, rows), ""])


def _line(row: Row) -> str:
    shape = "x".join(map(str, row.case.shapes[-1]))
    others = " | ".join(f"{1e6 * row.seconds[name]:.0f} ({row.times(name):.2f}x)" for name in BARS)
    return f"| {row.case.label} | {shape} | {row.threads} | {1e6 * row.seconds['geco_ext']:.0f} | {others} |"


def _forward_and_backward(function: Function, inputs: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    outputs = function(*inputs)
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    return [*outputs, *torch.autograd.grad(outputs, wanted, weights)]


def _inputs(case: Case, device: torch.device) -> list[Tensor]:
    torch.manual_seed(0)
    inputs = [0.5 * torch.randn(shape, device=device) for shape in case.shapes]
    if case.channels_last:
        inputs = [tensor.contiguous(memory_format=torch.channels_last) for tensor in inputs]
    for tensor in inputs[: -1 if case.has_noise else None]:
        tensor.requires_grad_()
    return inputs


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="regular expression for labels")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="the page is of the CPU")
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    parser.add_argument("--seconds", type=float, default=6.0, help="of each case")
    parser.add_argument("--turn", type=float, default=0.1, help="seconds of a candidate's turn")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    arguments = parser.parse_args()
    if arguments.write and arguments.device.type != "cpu":
        parser.error(f"--write: got --device {arguments.device}, expected cpu: the bars are those of the CPU")
    rows = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for case in cases():
            if re.search(arguments.only, case.label):
                rows.append(compare(case, arguments.seconds, arguments.turn, arguments.device))
                print(_line(rows[-1]), flush=True)
    for row in rows:
        missed = [f"{row.times(name):.2f}x {name}" for name, bar in BARS.items() if row.times(name) < bar]
        if row.case.is_large and missed:
            print(f"missed: {row.case.label}, {row.threads} threads: {', '.join(missed)}")
    if arguments.write:
        PAGE.write_text(page(rows, arguments.turn))


if __name__ == "__main__":
    main()

"""A training step of each model with the fused kernels, with the same formulas in plain PyTorch, and in float64.

python bench/model_steps.py                 # on the screen
python bench/model_steps.py --write         # on an idle machine: results/model_steps.md
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch
from model_kernels import plain_coupling, plain_gates, plain_gaussian, plain_inverse_coupling
from results import machine
from timing import measure
from torch import Tensor, nn

import geco_ext
from geco_ext.models import NVPVAE, ConvDraw

PAGE = Path(__file__).parent / "results" / "model_steps.md"


class Case(NamedTuple):
    """A model and the images it is trained on."""

    label: str
    build: Callable[[], nn.Module]
    image_shape: tuple[int, int, int]
    batch: int = 128


CASES = [
    Case("VAE+NVP", lambda: NVPVAE((1, 16, 16)), (1, 16, 16)),
    Case("VAE+NVP, 16 couplings", lambda: NVPVAE((3, 32, 32), latent=128, flows=16), (3, 32, 32), 64),
    Case("ConvDraw", lambda: ConvDraw((1, 16, 16)), (1, 16, 16)),
    Case(
        "ConvDraw, 8 steps of 32 channels",
        lambda: ConvDraw((3, 32, 32), steps=8, hidden=32, latent=8, downsampling=2),
        (3, 32, 32),
        32,
    ),
]


def plain_affine_coupling(x: Tensor, log_scale: Tensor, shift: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """Both directions."""
    return (plain_inverse_coupling if inverse else plain_coupling)(x, log_scale, shift)


def plain_models() -> AbstractContextManager[object]:
    """The models with plain PyTorch in place of the fused functions."""
    stack = ExitStack()
    for place, function in {
        "convolutional_lstm.lstm_gates": plain_gates,
        "convdraw.gaussian_rsample_kl": plain_gaussian,
        "coupling_flow.affine_coupling": plain_affine_coupling,
    }.items():
        stack.enter_context(patch(f"geco_ext.models.{place}", function))
    return stack


CANDIDATES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "geco_ext": nullcontext,
    "plain PyTorch": plain_models,
    "reference": lambda: geco_ext.use_backend("reference"),
}


def training_step(case: Case) -> Callable[[], Tensor]:
    """Forward, criterion, backward and Adam, as `geco train` does them."""
    torch.manual_seed(0)
    model = case.build()
    criterion = geco_ext.GECOLoss([geco_ext.ReconstructionError(0.1)])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    x = torch.rand(case.batch, *case.image_shape)

    def step() -> Tensor:
        output = model(x)
        loss: Tensor = criterion(output.x_hat, x, output.kl)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def compare(case: Case, seconds: float) -> dict[str, float]:
    """Seconds of a step for each candidate; their first losses were found to agree."""
    steps, losses = {}, {}
    for name, context in CANDIDATES.items():
        step = training_step(case)
        with context():
            torch.manual_seed(1)
            losses[name] = float(step())

        def within(step: Callable[[], Tensor] = step, context: Callable[[], AbstractContextManager[object]] = context):
            with context():
                return step()

        steps[name] = within
    for name, loss in losses.items():
        assert abs(loss / losses["reference"] - 1) < 1e-4, f"{case.label}: {name} has the loss {loss}, got {losses}"
    return {name: timing.seconds for name, timing in measure(steps, seconds, 0.5, torch.device("cpu")).items()}


def line(case: Case, seconds: dict[str, float]) -> str:
    """A row of the table."""
    shape = "x".join(map(str, (case.batch, *case.image_shape)))
    others = [f"{1e3 * s:.1f} ({s / seconds['geco_ext']:.2f}x)" for name, s in seconds.items() if name != "geco_ext"]
    return f"| {case.label} | {shape} | {1e3 * seconds['geco_ext']:.1f} | {' | '.join(others)} |"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each model")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for case in CASES:
        rows.append(line(case, compare(case, arguments.seconds)))
        print(rows[-1], flush=True)
    if arguments.write:
        of = machine(torch.device("cpu"))
        PAGE.write_text(
            "\n".join(
                [
                    "# Training steps of the models",
                    "",
                    "Made by `python bench/model_steps.py --write`: forward, criterion, backward and Adam in float32,",
                    f"{arguments.threads} thread, median milliseconds in turns; in brackets, how many times as long as",
                    "with the fused kernels. The reference backend computes kernels and criterion in float64.",
                    f"{of['processor']} ({of['instruction_set']}), torch {of['torch']}, geco_ext {of['geco_ext']}.",
                    "",
                    "| model | images | fused, ms | plain PyTorch | reference |",
                    "|---|---|---|---|---|",
                    *rows,
                    "",
                ]
            )
        )


if __name__ == "__main__":
    main()

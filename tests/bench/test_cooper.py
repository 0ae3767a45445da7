"""Cooper, another library for constrained optimisation, on the same problem: the same multipliers."""

import sys
from pathlib import Path

import pytest
import torch

from geco_ext import GECOLoss, MultiplierUpdate, ReconstructionError

cooper = pytest.importorskip("cooper")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from cooper_geco import Problem  # noqa: E402

KAPPAS, LR = (0.05, 0.25), 0.3


def errors(x_hat, x):
    """Of each channel, in float64 as geco_ext measures it."""
    squares = (x_hat - x).double().square()
    return squares.mean((0, 2, 3)) - torch.tensor(KAPPAS, dtype=torch.float64).square()


class Decoder(torch.nn.Module):
    """A scale and a shift for each channel; narrow posteriors cost KL, as the scale grows."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.full((1, 2, 1, 1), 0.2))
        self.shift = torch.nn.Parameter(torch.zeros(1, 2, 1, 1))

    def forward(self, x):
        return x * self.scale + self.shift, self.scale.square().sum().expand(len(x))


def batches():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(4, 2, 6, 5, generator=generator) for _ in range(200)]


def trajectory_of_cooper():
    decoder = Decoder()
    problem = Problem(errors, len(KAPPAS), torch.device("cpu"), alpha=0.9, dtype=torch.float64)
    optimizer = cooper.optim.SimultaneousOptimizer(
        problem,
        torch.optim.SGD(decoder.parameters(), lr=0.02),
        torch.optim.SGD(problem.dual_parameters(), lr=LR, maximize=True),
    )
    trajectory = []
    for x in batches():
        x_hat, kl = decoder(x)
        optimizer.roll({"x_hat": x_hat, "x": x, "kl": kl})
        trajectory.append(problem.multiplier().detach().clone())
    return torch.stack(trajectory), [p.detach() for p in decoder.parameters()]


def paper_criterion():
    """Two constraints, each of a channel of its own and with its own tolerance."""
    criterion = GECOLoss(
        [ReconstructionError(1.0, channels=2)],
        alpha=0.9,
        update=MultiplierUpdate.paper(LR),
        multiplier_init=1.0,
        multiplier_bounds=(1e-10, 1e10),
    )
    criterion.kappa = torch.tensor(KAPPAS, dtype=torch.float64)
    return criterion


def trajectory_of_geco_ext():
    decoder, criterion = Decoder(), paper_criterion()
    optimizer = torch.optim.SGD(decoder.parameters(), lr=0.02)
    trajectory = []
    for x in batches():
        x_hat, kl = decoder(x)
        optimizer.zero_grad()
        criterion(x_hat, x, kl).backward()
        optimizer.step()
        trajectory.append(criterion.multiplier)
    return torch.stack(trajectory), [p.detach() for p in decoder.parameters()]


def test_sgd_on_log_lambda_is_the_papers_update():
    """200 steps, model and multipliers moving together: the same trajectory."""
    (multipliers, weights), (expected, expected_weights) = trajectory_of_geco_ext(), trajectory_of_cooper()
    assert multipliers[-1].tolist() != pytest.approx([1.0, 1.0], abs=0.1)  # they have moved
    torch.testing.assert_close(multipliers, expected, rtol=1e-5, atol=0)
    for got, wanted in zip(weights, expected_weights, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)

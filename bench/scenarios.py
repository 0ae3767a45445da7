"""What is measured: for each scenario, candidates that do the same work on the same tensors, and the traffic floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from baselines import PlainGECO, PlainPaperGECO
from torch import nn

import geco_ext
from geco_ext import ops
from geco_ext.terms import IMAGE, Request

Candidate = Callable[[], object]

KAPPA = 0.1


@dataclass(frozen=True)
class Scenario:
    """One row of the table; ``floor`` reads two and writes one tensor of the images' size, as ``operator`` must."""

    name: str
    shape: tuple[int, int, int, int]
    paper: bool = False  # the paper's update on both sides instead of the default's

    def candidates(self) -> dict[str, Candidate]:
        torch.manual_seed(0)
        torch._dynamo.reset()
        x = torch.rand(self.shape)
        elements = x[0].numel()
        constraint = [geco_ext.ReconstructionError(KAPPA)]
        ours = geco_ext.GECOLoss.paper(constraint, lr=0.05) if self.paper else geco_ext.GECOLoss(constraint)
        plain = PlainPaperGECO if self.paper else PlainGECO
        return {
            "geco_ext": self._step(ours, x),
            "eager": self._step(plain(KAPPA, elements), x),
            "compile": self._step(torch.compile(plain(KAPPA, elements)), x),
            "operator": self._operator(x),
            "floor": self._floor(x),
        }

    def _step(self, criterion: nn.Module, x: torch.Tensor) -> Candidate:
        """Forward, backward and multiplier update; x_hat and kl are leaves, so all gradients are made."""
        x_hat = torch.rand(self.shape, requires_grad=True)
        kl = torch.rand(self.shape[0], requires_grad=True)

        def step() -> None:
            x_hat.grad = kl.grad = None
            criterion(x_hat, x, kl).backward()

        return step

    def _operator(self, x: torch.Tensor) -> Candidate:
        """The fused operator alone, into buffers allocated as the floor's are: constraint, gradient, update, loss."""
        x_hat, kl = torch.rand(self.shape), torch.rand(self.shape[0])
        criterion = geco_ext.GECOLoss([geco_ext.ReconstructionError(KAPPA)])
        request = Request(
            predictions=[x_hat],
            targets=[x],
            kl=kl,
            block=criterion._block,
            terms=criterion._terms,
            owners=(IMAGE,),
            gradients=[torch.empty(self.shape), None],
            batch=self.shape[0],
            image_elements=x[0].numel(),
            update=criterion._settings,
        )
        return lambda: ops.lagrangian(request)

    def _floor(self, x: torch.Tensor) -> Candidate:
        y, z = torch.rand(self.shape), torch.empty(self.shape)
        return lambda: torch.add(x, y, out=z)


SCENARIOS = (
    Scenario("RE", (1, 1, 8, 8)),
    Scenario("RE, the paper's update", (1, 1, 8, 8), paper=True),
    Scenario("RE", (64, 3, 32, 32)),
    Scenario("RE", (64, 3, 64, 64)),
    Scenario("RE", (16, 3, 256, 256)),
)

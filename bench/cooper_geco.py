"""GECO written with the classes of Cooper (``cooper-optim``): the paper's multiplier update as SGD on log lambda.

Cooper's dual variables take steps along the derivative of the Lagrangian. Algorithm 1 moves log lambda by
``lr * C_ma``, so the multiplier is a module whose value is lambda and whose derivative by log lambda is one, and the
strict violation, which Cooper lets a user give beside the differentiable one, is the moving average.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cooper
import torch
from torch import Tensor


class LogMultiplier(cooper.multipliers.ImplicitMultiplier):
    """lambda = exp(log lambda), a dual step moves log lambda by learning rate times violation."""

    expects_constraint_features = False

    def __init__(self, constraints: int, device: torch.device, dtype: torch.dtype, bounds: tuple[float, float]):
        super().__init__()
        self.log_multiplier = torch.nn.Parameter(torch.zeros(constraints, device=device, dtype=dtype))
        self.low, self.high = map(math.log, bounds)

    def forward(self) -> Tensor:
        value = self.log_multiplier.detach().exp()
        return value + (self.log_multiplier - self.log_multiplier.detach())

    @torch.no_grad()
    def post_step_(self) -> None:
        self.log_multiplier.clamp_(self.low, self.high)


class Problem(cooper.ConstrainedMinimizationProblem):
    """Minimise the KL under a constraint vector; the first call's average is its own constraint."""

    def __init__(
        self,
        constraints: Callable[[Tensor, Tensor], Tensor],
        count: int,
        device: torch.device,
        alpha: float = 0.99,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.constraint_vector, self.alpha = constraints, alpha
        self.average: Tensor | None = None
        self.multiplier = LogMultiplier(count, device, dtype, (1e-10, 1e10))
        self.constraint = cooper.Constraint(cooper.ConstraintType.INEQUALITY, multiplier=self.multiplier)

    def compute_cmp_state(self, x_hat: Tensor, x: Tensor, kl: Tensor) -> cooper.CMPState:
        c_hat = self.constraint_vector(x_hat, x).reshape(-1)
        found = c_hat.detach()
        self.average = found if self.average is None else torch.lerp(found, self.average, self.alpha)
        state = cooper.ConstraintState(violation=c_hat + (self.average - found), strict_violation=self.average)
        return cooper.CMPState(loss=kl.mean(), observed_constraints={self.constraint: state})


class CooperGECO:
    """The Lagrangian as a loss; the dual step of a simultaneous update is taken at once, as ``roll`` would."""

    def __init__(self, problem: Problem, lr: float):
        self.problem = problem
        self.optimizer = torch.optim.SGD(problem.dual_parameters(), lr=lr, maximize=True)

    def __call__(self, x_hat: Tensor, x: Tensor, kl: Tensor) -> Tensor:
        state = self.problem.compute_cmp_state(x_hat, x, kl)
        primal, dual = state.compute_primal_lagrangian(), state.compute_dual_lagrangian()
        self.optimizer.zero_grad()
        dual.backward()
        self.optimizer.step()
        for multiplier in self.problem.multipliers():
            multiplier.post_step_()
        return primal.lagrangian

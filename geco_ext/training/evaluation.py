"""What a trained model reaches over a whole data set, and how that compares with what was asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from geco_ext import Constraint, GECOLoss, ReconstructionError
from geco_ext.data import ImageDataset
from geco_ext.state import kappa_at_the_end
from geco_ext.training.met import MET_WITHIN, is_met
from geco_ext.training.objectives import Criterion, GaussianObjective, counted_squares, gaussian_nll
from geco_ext.training.run_folder import History
from geco_ext.training.training_step import ConstrainedTraining

SETTLED_SHARE = 0.1
"""The last share of the history that tells whether a multiplier rests on its bound."""

EVALUATION_BATCH = 250

ENOUGH = 4000
"""Reconstructions that a mean is taken over, at least: a smaller data set is passed over several times.

One pass over 53 images gave RMSEs from 7% below their mean to 7% above it, where 2.5% decide whether kappa is met. Over
so many reconstructions that is under 1%, for less than 1% of what a usual training computes.
"""


@dataclass(frozen=True)
class Evaluation:
    """Means over a data set, eval mode.

    Attributes:
        rmse: root of the mean squared error over all elements, weighted where they have weights.
        kl: mean KL in nats.
        constraints: the constraint vector, float64 [L], empty for objectives without constraints; of the examples that
            have weights, where there are any.
        elements: of an image, the sum of their weights where they have any; on average.
        samples: posterior samples of each example.
    """

    rmse: float
    kl: float
    constraints: Tensor
    elements: float
    samples: int = 1


@torch.no_grad()
def evaluate(
    module: ConstrainedTraining, dataset: ImageDataset, seed: int, reconstructions: int = ENOUGH
) -> Evaluation:
    """RMSE, KL and constraints over a data set, on the device the module is on.

    Every example has as many posterior samples as it takes to see that many ``reconstructions``. They are drawn from
    ``seed``; the global random state is left as it was.
    """
    squared_error = torch.zeros((), dtype=torch.float64, device=module.device)
    kl = torch.zeros_like(squared_error)
    total: Tensor = torch.zeros((), dtype=torch.float64, device=module.device)
    examples: Tensor = torch.zeros_like(total)
    elements = torch.zeros_like(total)
    samples = math.ceil(reconstructions / len(dataset))
    order = torch.arange(len(dataset)).repeat(samples)
    with fixed_seed(seed, module.device):
        for indices in order.split(EVALUATION_BATCH):
            batch = on_device(dataset[indices], module.device)
            output = module.reconstructed(batch)
            x, weight = batch["x"].double(), batch.get("weight")
            squared_error += counted_squares(output.x_hat.double() - x, weight).sum()
            elements += x.numel() if weight is None else weight.expand_as(x).sum(dtype=torch.float64)
            kl += output.kl.double().sum()
            counts = examples_counted(module.criterion, batch)
            averages = constraint_vector(module.criterion, output.x_hat, batch) * counts
            total = total + torch.where(counts > 0, averages, 0.0)
            examples = examples + counts
    return Evaluation(
        rmse=float((squared_error / elements).sqrt()),
        kl=float(kl / len(order)),
        constraints=(total / examples).cpu(),
        elements=float(elements / len(order)),
        samples=samples,
    )


def constraint_vector(criterion: Criterion, x_hat: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The constraint vector of one batch, float64 [L]."""
    if isinstance(criterion, GaussianObjective):
        return x_hat.new_empty(0, dtype=torch.float64)
    values = criterion.evaluate(x_hat, batch["x"], labels=batch["label"], weight=batch.get("weight"))
    return torch.stack([values[f"constraint/{name}"] for name in criterion.names])


def examples_counted(criterion: Criterion, batch: dict[str, Tensor]) -> Tensor:
    """Of how many examples of a batch each entry of the constraint vector is the average, float64 [L]."""
    x, weight = batch["x"], batch.get("weight")
    counts: list[Tensor] = [x.new_empty(0, dtype=torch.float64)]
    for constraint in constraints_of(criterion):
        count = x.new_full((constraint._rows,), len(x), dtype=torch.float64)
        if weight is not None and constraint._term().is_elementwise:
            has_weights = (weight.expand_as(x) > 0).flatten(2).any(2)  # [B, C]
            each = has_weights if constraint._rows > 1 else has_weights.any(1, keepdim=True)
            count = each.sum(0, dtype=torch.float64)
        counts.append(count)
    return torch.hstack(counts)


def constraints_of(criterion: Criterion) -> list[Constraint]:
    """The constraints of a criterion, which holds them as modules; none for an objective without constraints."""
    if isinstance(criterion, GaussianObjective):
        return []
    return cast(list[Constraint], list(criterion.constraints))


@contextmanager
def fixed_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Draw what is random inside from ``seed`` and put the global random state back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def on_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch on a device."""
    return {name: value.to(device) for name, value in batch.items()}


@dataclass(frozen=True)
class ConstraintResult:
    """One constraint at the end of a run.

    Attributes:
        name: its name.
        kappa: the tolerance.
        asked: what was asked of ``reached``.
        reached: the quantity that kappa bounds (root mean square error, correlation, probability); for a class of
            one's own that gives a scale the constraint's value itself.
        deviation_percent: how far ``reached`` lies above kappa in percent of it; None where that says nothing.
        violation: the constraint over its scale, C/s; satisfied at 0 or below.
        multiplier: lambda.
        met: whether it is (:func:`geco_ext.training.met.is_met`).
        at_bound: whether the multiplier rests on its upper bound.
        counts_as_met: what is enough of ``reached``.
        held_out_reached: ``reached`` on examples that were not trained on; None where there are none.
        held_out_violation: ``violation`` there.
        held_out_met: ``met`` there.
    """

    name: str
    kappa: float
    asked: str
    reached: float
    deviation_percent: float | None
    violation: float
    multiplier: float
    met: bool
    at_bound: bool
    counts_as_met: str
    held_out_reached: float | None = None
    held_out_violation: float | None = None
    held_out_met: bool | None = None


def constraint_results(
    criterion: GECOLoss, evaluation: Evaluation, history: History, held_out: Evaluation | None = None
) -> tuple[ConstraintResult, ...]:
    """One result per entry of the constraint vector."""
    results = _results(criterion, evaluation, history)
    if held_out is None:
        return results
    return tuple(
        replace(
            each,
            held_out_reached=there.reached,
            held_out_violation=there.violation,
            held_out_met=there.met,
        )
        for each, there in zip(results, _results(criterion, held_out, history), strict=True)
    )


def violations(criterion: GECOLoss, evaluation: Evaluation) -> dict[str, float]:
    """C/s by name."""
    return {result.name: result.violation for result in _results(criterion, evaluation, {})}


def _results(criterion: GECOLoss, evaluation: Evaluation, history: History) -> tuple[ConstraintResult, ...]:
    targets = kappa_at_the_end(criterion.state_dict())
    vectors = (evaluation.constraints, criterion.kappa, targets, criterion.multiplier)
    numbers = zip(*(vector.tolist() for vector in vectors), strict=True)
    return tuple(
        _result(
            name,
            constraint,
            value + _tightening(constraint, kappa, target),
            target,
            multiplier,
            _ended_at_bound(history.get(f"at_bound/{name}", [])),
        )
        for (name, constraint), (value, kappa, target, multiplier) in zip(entries(criterion), numbers, strict=True)
    )


def _tightening(constraint: Constraint, kappa: float, target: float) -> float:
    """By how much C is more under the target of a schedule than under the kappa in force, which it was found with."""
    if constraint.scale_rule == "kappa^2":
        return kappa**2 - target**2
    return target - kappa if constraint.scale_rule == "1-kappa" else kappa - target


def reconstruction_tolerances(criterion: GECOLoss) -> dict[str, float]:
    """Kappa by name of the constraints that bound the RMSE of the images."""
    return {
        name: kappa
        for (name, constraint), kappa in zip(
            entries(criterion), kappa_at_the_end(criterion.state_dict()).tolist(), strict=True
        )
        if isinstance(constraint, ReconstructionError) and constraint.reduction == "mean"
    }


def entries(criterion: GECOLoss) -> Iterator[tuple[str, Constraint]]:
    """Name and constraint of every entry: a constraint on C channels has C entries."""
    constraints = {constraint.name: constraint for constraint in constraints_of(criterion)}
    for name in criterion.names:
        yield name, constraints[name if name in constraints else name.rpartition("/")[0]]


def scale_of(constraint: Constraint, kappa: float) -> float:
    """The scale s of a constraint with the tolerance ``kappa``."""
    scales = {"kappa^2": kappa**2, "kappa": kappa, "1-kappa": 1 - kappa, "own": constraint.scale or kappa or 1.0}
    return max(scales[constraint.scale_rule], 1e-12)


def _result(
    name: str, constraint: Constraint, value: float, kappa: float, multiplier: float, at_bound: bool
) -> ConstraintResult:
    # A class of one's own that gives no scale subtracts kappa from an error, as its documentation says.
    is_error = constraint.scale is None and kappa > 0
    rule = "kappa" if constraint.scale_rule == "own" and is_error else constraint.scale_rule
    quantities: dict[str, tuple[str, float, Callable[[float], float]]] = {
        "kappa^2": ("<=", kappa, lambda c: math.sqrt(abs(c + kappa**2))),  # rounding may leave -1e-18
        "kappa": ("<=", kappa, lambda c: c + kappa),
        "1-kappa": (">=", kappa, lambda c: kappa - c),
        "own": ("C <=", 0.0, lambda c: c),
    }
    relation, bound, quantity_of = quantities[rule]
    reached, scale = quantity_of(value), scale_of(constraint, kappa)
    violation = value / scale
    return ConstraintResult(
        name=name,
        kappa=kappa,
        asked=f"{relation} {bound:g}",
        reached=reached,
        deviation_percent=100 * (reached / kappa - 1) if kappa != 0 and rule != "own" else None,
        violation=violation,
        multiplier=multiplier,
        met=is_met(violation),
        at_bound=at_bound,
        counts_as_met=f"{relation} {quantity_of(MET_WITHIN * scale):.4g}",
    )


def _ended_at_bound(records: list[float]) -> bool:
    last = records[-max(1, round(SETTLED_SHARE * len(records))) :]
    return bool(last) and sum(last) > len(last) / 2


@dataclass(frozen=True)
class ObjectiveResult:
    """The end of a run with an objective without constraints.

    Attributes:
        name: the objective as it was asked for.
        nll: mean negative log density of an image in nats, under the objective's sigma.
        optimal_nll: the same under sigma = RMSE, which makes it smallest (equation 26 of "Taming VAEs", Appendix D).
        beta: weight of the KL.
        sigma: standard deviation of a pixel.
    """

    name: str
    nll: float
    optimal_nll: float
    beta: float
    sigma: float


def objective_result(name: str, objective: GaussianObjective, evaluation: Evaluation) -> ObjectiveResult:
    """The result, from an evaluation over the data set."""
    elements = evaluation.elements
    squared_error = torch.tensor(elements * evaluation.rmse**2, dtype=torch.float64)
    log_sigma = objective.log_sigma.detach().double().cpu()
    return ObjectiveResult(
        name=name,
        nll=float(gaussian_nll(squared_error, log_sigma, elements)),
        optimal_nll=float(gaussian_nll(squared_error, torch.tensor(evaluation.rmse).double().log(), elements)),
        beta=float(objective.beta),
        sigma=math.exp(float(log_sigma)),
    )

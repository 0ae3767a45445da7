"""What a trained model reaches over a whole data set."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from geco_ext import Constraint
from geco_ext.data import ImageDataset
from geco_ext.training.constrained_training import ConstrainedTraining
from geco_ext.training.gaussian_objective import Criterion, GaussianObjective

EVALUATION_BATCH = 250


@dataclass(frozen=True)
class Evaluation:
    """Means over a data set, eval mode, one posterior sample an example.

    Attributes:
        rmse: root of the mean squared error over all elements.
        kl: mean KL in nats.
        constraints: the constraint vector, float64 [L], empty for objectives without constraints.
    """

    rmse: float
    kl: float
    constraints: Tensor


@torch.no_grad()
def evaluate(module: ConstrainedTraining, dataset: ImageDataset, seed: int) -> Evaluation:
    """RMSE, KL and constraints over a data set, on the device the module is on.

    The posterior samples are drawn from ``seed``; the global random state is left as it was.
    """
    squared_error = torch.zeros((), dtype=torch.float64, device=module.device)
    kl = torch.zeros_like(squared_error)
    total: Tensor = torch.zeros((), dtype=torch.float64, device=module.device)
    with drawn_from(seed, module.device):
        for first in range(0, len(dataset), EVALUATION_BATCH):
            batch = on_device(dataset[first : first + EVALUATION_BATCH], module.device)
            output = module.reconstructed(batch)
            squared_error += (output.x_hat.double() - batch["x"].double()).square().sum()
            kl += output.kl.double().sum()
            total = total + constraint_vector(module.criterion, output.x_hat, batch) * len(batch["x"])
    return Evaluation(
        rmse=float((squared_error / (len(dataset) * math.prod(dataset.image_shape))).sqrt()),
        kl=float(kl / len(dataset)),
        constraints=(total / len(dataset)).cpu(),
    )


def constraint_vector(criterion: Criterion, x_hat: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The constraint vector of one batch, float64 [L]."""
    averages: list[Tensor] = [x_hat.new_empty(0, dtype=torch.float64)]
    for constraint in constraints_of(criterion):
        value = constraint(x_hat, batch["x"], batch["label"]).double()
        averages.append(value if constraint._rows > 1 else value.mean())  # a class of one's own may give one an example
    return torch.hstack(averages)


def constraints_of(criterion: Criterion) -> list[Constraint]:
    """The constraints of a criterion, which holds them as modules; none for an objective without constraints."""
    if isinstance(criterion, GaussianObjective):
        return []
    return cast(list[Constraint], list(criterion.constraints))


@contextmanager
def drawn_from(seed: int, device: torch.device) -> Iterator[None]:
    """Draw what is random inside from ``seed`` and put the global random state back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def on_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch on a device."""
    return {name: value.to(device) for name, value in batch.items()}

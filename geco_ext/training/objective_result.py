"""What an objective without constraints came to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from geco_ext.data import ImageDataset
from geco_ext.training.evaluation import Evaluation
from geco_ext.training.gaussian_objective import GaussianObjective, gaussian_nll


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


def objective_result(
    name: str, objective: GaussianObjective, evaluation: Evaluation, dataset: ImageDataset
) -> ObjectiveResult:
    """The result, from an evaluation over the data set."""
    elements = math.prod(dataset.image_shape)
    squared_error = torch.tensor(elements * evaluation.rmse**2, dtype=torch.float64)
    log_sigma = objective.log_sigma.detach().double().cpu()
    return ObjectiveResult(
        name=name,
        nll=float(gaussian_nll(squared_error, log_sigma, elements)),
        optimal_nll=float(gaussian_nll(squared_error, torch.tensor(evaluation.rmse).double().log(), elements)),
        beta=float(objective.beta),
        sigma=math.exp(float(log_sigma)),
    )

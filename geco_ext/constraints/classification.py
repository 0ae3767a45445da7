"""CLA: classification accuracy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from geco_ext.checks import check_class_gradient, check_class_scores, check_kappa_probability, check_labels
from geco_ext.constraints.base import ComparedPair, batch_average
from geco_ext.constraints.frozen import NetworkConstraint
from geco_ext.contract import Term
from geco_ext.schedule import Kappa


class ClassificationAccuracy(NetworkConstraint):
    """Probability that a classifier gives the reconstruction's true label (CLA, Table 1 of "Taming VAEs").

    ``C = kappa - c(x_hat)[label]``. (The table prints the opposite sign; this one bounds the accuracy from below.)

    Alone it is hardly met by its own gradient, whatever the multiplier: that is proportional to the probability, next
    to nothing where the classifier is sure of another class, and some classes are never learned. With
    ``gradient="log_probability"`` the value and the multiplier's update stay those of C, and only the direction for
    the weights is that of ``-log c(x_hat)[label]``, the same up to the factor 1 / probability of an example: a proxy
    constraint as in Cotter et al. 2019 (arXiv:1804.06500). It is what ``geco train`` uses.

    Args:
        kappa: demanded average probability, in [0, 1].
        classifier: images [B, C, H, W] -> scores [B, classes]. A module is frozen, kept in eval mode, moved by
            ``to()`` and left out of ``state_dict``.
        from_logits: the scores are logits (a softmax follows) rather than probabilities.
        name: key in ``metrics()``.
        gradient: ``"probability"``, the gradient of C, or ``"log_probability"``.

    Raises:
        ValueError: kappa outside [0, 1]; an unknown gradient; at the call, labels missing, not integers [B], or out of
            range (on a GPU an out-of-range label makes the constraint NaN instead, without waiting for the device).

    Example:
        >>> import torch
        >>> classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        >>> x = torch.rand(2, 1, 8, 8)
        >>> constraint = ClassificationAccuracy(0.9, classifier)
        >>> bool(constraint(x, x, labels=torch.tensor([3, 7])) < 0.9)
        True
    """

    _zero_tolerance = 1.0

    def __init__(
        self,
        kappa: Kappa,
        classifier: Callable[[Tensor], Tensor],
        from_logits: bool = True,
        name: str | None = None,
        gradient: str = "probability",
    ) -> None:
        super().__init__(kappa, classifier, "classifier", name)
        self.gradient = check_class_gradient(gradient)
        self.from_logits = bool(from_logits)

    def forward(self, x_hat: Tensor, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Batch average, 0-d."""
        ((probabilities, _),) = self._pairs(x_hat, x, labels)
        return batch_average(self._term(), [probabilities], [None], self.kappa)

    def _check_kappa(self, kappa: float) -> float:
        return check_kappa_probability(kappa)

    def _term(self) -> Term:
        return Term("scalar_similarity", on_image=False)

    def _pairs(
        self, x_hat: Tensor, x: Tensor, labels: Tensor | None, weight: Tensor | None = None
    ) -> list[ComparedPair]:
        scores = self._look(x_hat)
        check_class_scores(scores, x_hat.shape[0], f"scores of constraint {self.name!r}")
        labels = check_labels(labels, scores)
        return [ComparedPair(probability_of_label(scores, labels, self.from_logits, self.gradient), None)]


def classification_accuracy(
    prediction: Tensor, target: Tensor, *, kappa: float, from_logits: bool = True, gradient: str = "probability"
) -> Tensor:
    """Kappa minus the probability of the true class (CLA, Table 1).

    Args:
        prediction: class scores [B, classes] of the reconstructions.
        target: true labels, integers [B].
        kappa: demanded average probability, in [0, 1].
        from_logits: the scores are logits rather than probabilities.
        gradient: ``"probability"``, or ``"log_probability"``: see :class:`geco_ext.ClassificationAccuracy`.

    Returns:
        The batch average, 0-d.

    Raises:
        ValueError: scores that are not [B, classes]; labels that are not integers [B] in range; kappa outside [0, 1];
            an unknown gradient.

    Example:
        >>> logits = torch.tensor([[50.0, 0.0]])
        >>> round(float(classification_accuracy(logits, torch.tensor([0]), kappa=0.9)), 6)
        -0.1
    """
    batch = prediction.shape[0] if isinstance(prediction, Tensor) and prediction.dim() else 0
    check_class_scores(prediction, batch, "prediction")
    if batch == 0:
        raise ValueError(f"prediction: got the empty shape {tuple(prediction.shape)}, expected at least one example")
    labels = check_labels(target, prediction)
    kappa = check_kappa_probability(kappa)
    probabilities = probability_of_label(prediction, labels, bool(from_logits), check_class_gradient(gradient))
    return batch_average(Term("scalar_similarity"), [probabilities], [None], kappa)


SMALLEST_PROBABILITY = 1e-12  # what a smaller one counts as where it is divided by


def probability_of_label(scores: Tensor, labels: Tensor, from_logits: bool, gradient: str) -> Tensor:
    """The probability of each example's label, [B], in float32 at least; NaN where the label is out of range."""
    if scores.dtype != torch.float64:
        scores = scores.to(torch.float32)
    if gradient == "log_probability":
        return _InDirectionOfLogarithm.apply(scores, labels, from_logits)  # type: ignore[no-any-return, no-untyped-call]
    return _gathered(scores.softmax(1) if from_logits else scores, labels)


def _gathered(probabilities: Tensor, labels: Tensor) -> Tensor:
    classes = probabilities.shape[1]
    in_range = (labels >= 0) & (labels < classes)
    of_label = probabilities.gather(1, labels.clamp(0, classes - 1)[:, None])[:, 0]
    return of_label * torch.where(in_range, 1.0, torch.nan).to(of_label.dtype)  # the gradient is not finite either


class _InDirectionOfLogarithm(torch.autograd.Function):
    """The probability of the label, with the derivative of its logarithm."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, labels: Tensor, from_logits: bool) -> Tensor:
        """[B]."""
        probabilities = scores.softmax(1) if from_logits else scores
        of_label = _gathered(probabilities, labels)
        ctx.from_logits = from_logits
        ctx.save_for_backward(probabilities, labels, of_label)
        return of_label

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Of logits, that is 1 - p for the label's class and -p for all others; of probabilities 1 / p."""
        probabilities, labels, of_label = ctx.saved_tensors
        is_label = torch.arange(probabilities.shape[1], device=labels.device) == labels[:, None]
        unit = is_label.to(probabilities.dtype)
        of_label = of_label[:, None]
        derivative = unit - probabilities if ctx.from_logits else unit / of_label.clamp_min(SMALLEST_PROBABILITY)
        derivative = torch.where(of_label.isnan(), of_label, derivative)
        return grad_outputs[0][:, None] * derivative, None, None

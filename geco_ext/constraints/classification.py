"""CLA: classification accuracy."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from geco_ext import functional
from geco_ext.checks import check_class_gradient, check_class_scores, check_kappa_probability, check_labels
from geco_ext.constraints.base import ComparedPair
from geco_ext.constraints.frozen import NetworkConstraint
from geco_ext.contract import Term


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

    def __init__(
        self,
        kappa: float,
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
        ((scores, target),) = self._pairs(x_hat, x, labels)
        assert target is not None
        return functional.classification_accuracy(
            scores, target, kappa=self.kappa, from_logits=self.from_logits, gradient=self.gradient
        )

    def _check_kappa(self, kappa: float) -> float:
        return check_kappa_probability(kappa)

    def _term(self) -> Term:
        return Term(
            "class_probability",
            on_image=False,
            from_logits=self.from_logits,
            log_gradient=self.gradient != "probability",
        )

    def _pairs(self, x_hat: Tensor, x: Tensor, labels: Tensor | None) -> list[ComparedPair]:
        scores = self._look(x_hat)
        check_class_scores(scores, x_hat.shape[0], f"scores of constraint {self.name!r}")
        return [ComparedPair(scores, check_labels(labels, scores))]

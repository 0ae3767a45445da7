"""CLA: classification accuracy."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from geco_ext.checks import check_class_gradient, check_class_scores, check_kappa_probability, check_labels
from geco_ext.constraints.base import ComparedPair, batch_average
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
        return classification_accuracy(
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
    log_gradient = check_class_gradient(gradient) == "log_probability"
    term = Term("class_probability", from_logits=bool(from_logits), log_gradient=log_gradient)
    return batch_average(term, [prediction], [labels], check_kappa_probability(kappa))

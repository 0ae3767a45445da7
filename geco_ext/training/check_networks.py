"""Whether the classifiers in a run's constraints suit its data set."""

from __future__ import annotations

from collections.abc import Sequence

from geco_ext import ClassificationAccuracy, Constraint
from geco_ext.constraints.frozen import NetworkConstraint
from geco_ext.data import ImageDataset
from geco_ext.training.class_labels import number_of_classes


def check_networks(texts: Sequence[str], constraints: Sequence[Constraint], dataset: ImageDataset, data: str) -> None:
    """Refuse a checkpoint of `geco train-classifier` that was trained on images or classes of another kind.

    Networks of a user's own say nothing of what they were trained on and are not checked here.

    Args:
        texts: the constraints as written on the command line.
        constraints: what was built from them.
        dataset: the training set.
        data: its name.

    Raises:
        ValueError: another shape of images; for CLA, another number of classes, or labels that are no classes.
    """
    for text, constraint in zip(texts, constraints, strict=True):
        network = constraint._network[0] if isinstance(constraint, NetworkConstraint) else None
        image_shape, classes = getattr(network, "image_shape", None), getattr(network, "classes", None)
        if image_shape is not None and tuple(image_shape) != dataset.image_shape:
            raise ValueError(
                f"constraint {text!r}: the classifier takes images of shape (C, H, W) = {tuple(image_shape)}, "
                f"data {data!r} has {dataset.image_shape}"
            )
        if isinstance(constraint, ClassificationAccuracy):
            _check_classes(text, classes, dataset, data)


def _check_classes(text: str, classes: int | None, dataset: ImageDataset, data: str) -> None:
    try:
        found = number_of_classes(dataset)
    except ValueError as error:
        raise ValueError(f"constraint {text!r} cannot be used with data {data!r}: {error}") from error
    may_lack_some = classes is not None and len(dataset) < classes  # a handful of examples cannot show all classes
    if classes is not None and found != classes and not (may_lack_some and found < classes):
        raise ValueError(f"constraint {text!r}: the classifier knows {classes} classes, data {data!r} has {found}")

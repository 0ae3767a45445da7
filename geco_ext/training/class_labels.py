"""Whether a data set's labels are classes, which classifiers and the constraint CLA need."""

from __future__ import annotations

from geco_ext.data import ImageDataset


def number_of_classes(dataset: ImageDataset) -> int:
    """The classes of a data set, counted up from label 0 to the largest.

    Raises:
        ValueError: several labels an example, or labels that tell no classes apart.

    Example:
        >>> number_of_classes(geco_ext.data.load("digits"))
        10
    """
    labels = dataset.labels
    if labels.dim() != 1:
        raise ValueError(f"it has {labels.shape[1]} labels an example, expected one that names its class")
    if bool((labels < 0).any()):
        raise ValueError("it has negative labels, expected classes from 0")
    classes = int(labels.max()) + 1
    if classes < 2:
        raise ValueError("it has no labels (all of its examples have label 0), expected one of at least two classes")
    return classes

"""What can be chosen about the training of a classifier, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from geco_ext.training.settings import MAX_SEED, spoken


@dataclass(frozen=True)
class ClassifierSettings:
    """Settings of one classifier's training.

    Attributes:
        model: name of the classifier, see `classifier_registry`.
        model_options: keyword arguments of its class.
        data: name of the data set, see :func:`geco_ext.data.load`; every example needs one label.
        root: folder with the data set's files, for data sets that are not embedded.
        size: height and width of the images in pixels; None is the data set's usual size.
        steps: optimiser steps.
        batch_size: examples per step.
        learning_rate: AdamW's, until it falls linearly to 0 over the last fifth of the steps.
        seed: of the weights, the data order and the augmentation.
        accelerator: Lightning's accelerator: auto, cpu, gpu...
        threads: CPU threads; None is PyTorch's own choice.

    Raises:
        ValueError: a value outside the range its message names.
    """

    model: str = "conv"
    model_options: Mapping[str, int] = field(default_factory=dict)
    data: str = "digits"
    root: str | None = None
    size: int | None = None
    steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 1e-3
    seed: int = 0
    accelerator: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "threads", "size"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{spoken(name)} must be an integer of at least 1, got {value!r}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning rate must be a positive number, got {self.learning_rate!r}")
        if not isinstance(self.seed, int) or not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed must be an integer from 0 to {MAX_SEED}, got {self.seed!r}")

"""A trained classifier as a file: what `geco train-classifier` writes and the constraints CLA and FRE read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

import geco_ext
from geco_ext.data import ImageDataset
from geco_ext.files import replaced_when_written
from geco_ext.models import ConvolutionalClassifier, ResNet
from geco_ext.nearest import did_you_mean
from geco_ext.training.model_options import check_options

CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {"conv": ConvolutionalClassifier, "resnet": ResNet}
"""The classifiers that can be trained."""

KIND = "classifier of geco_ext"
"""Entry of the file by which it is known for what it is."""


@dataclass(frozen=True)
class ClassifierCheckpoint:
    """A trained classifier.

    Attributes:
        model: name of the classifier, one of `CLASSIFIERS`.
        options: keyword arguments of its class.
        image_shape: (C, H, W) of the images it takes.
        classes: number of classes.
        data: name of the data set it was trained on.
        train_accuracy: share of the training set it classifies correctly.
        test_accuracy: the same of the test set.
        feature_scale: standard deviation of its features over the training set: the square root of the mean, over all
            feature elements, of the element's variance over the examples.
        state_dict: the weights.
    """

    model: str
    options: Mapping[str, int]
    image_shape: tuple[int, int, int]
    classes: int
    data: str
    train_accuracy: float
    test_accuracy: float
    feature_scale: float
    state_dict: Mapping[str, Tensor]

    def write(self, file: Path) -> None:
        """Save to a file: tensors and plain values only."""
        weights = {name: value.detach().cpu() for name, value in self.state_dict.items()}
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        content = {**values, "options": dict(self.options), "state_dict": weights}
        with replaced_when_written(file) as temporary:
            torch.save({"kind": KIND, "geco_ext": geco_ext.__version__, **content}, temporary)

    @classmethod
    def read(cls, file: Path) -> ClassifierCheckpoint:
        """A checkpoint from its file; nothing in it is run as code.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is damaged or is no checkpoint of a classifier.
        """
        if not file.is_file():
            raise FileNotFoundError(f"no classifier checkpoint {file}; geco train-classifier makes one")
        try:
            content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises a dozen types on damaged files, none of its own
            reason = str(error).strip().partition("\n")[0][:100] or type(error).__name__
            raise ValueError(f"{file} cannot be read as a checkpoint of geco train-classifier ({reason})") from error
        if not isinstance(content, dict) or content.get("kind") != KIND:
            raise ValueError(f"{file} is not a checkpoint of geco train-classifier")
        names = {each.name for each in fields(cls)}
        missing = sorted(names - content.keys())
        if missing:
            raise ValueError(f"{file} lacks {', '.join(missing)}: it is damaged or of another version")
        return cls(**{name: content[name] for name in names})

    def classifier(self) -> nn.Module:
        """The classifier with its weights, in eval mode: images [B, C, H, W] -> logits [B, classes].

        Raises:
            ValueError: weights that are not those of the classifier described.
        """
        with torch.random.fork_rng(devices=[]):
            network = build_classifier(self.model, self.image_shape, self.classes, self.options)
        try:
            network.load_state_dict(self.state_dict)
        except RuntimeError as error:
            first = str(error).strip().splitlines()[-1].strip()
            raise ValueError(f"the weights are not those of the classifier {self.model!r}: {first}") from error
        return network.eval()

    def extractor(self) -> nn.Module:
        """The features that FRE compares, in units of their standard deviation over the training set.

        Of a ResNet the first 8 layers, of the convolutional classifier its convolutions.

        Raises:
            ValueError: weights that are not those of the classifier described.
        """
        return StandardisedFeatures(self.classifier(), self.feature_scale).eval()


class StandardisedFeatures(nn.Module):
    """Features divided by one number, their standard deviation over the training set.

    FRE's kappa is then a share of how much features differ between examples, whatever network they come from: 1 is what
    the mean of all features would reach, 0 is perfection. The papers give kappa = 0.0625 and 1.0 in the units of their
    own network, which carry over to no other.

    Args:
        classifier: whose features.
        scale: their standard deviation.
    """

    def __init__(self, classifier: nn.Module, scale: float) -> None:
        super().__init__()
        described = cast(Classifier, classifier)
        self.image_shape, self.classes = described.image_shape, described.classes
        self.features = described.features()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Feature map [B, F, H', W'] of images x [B, C, H, W]."""
        features: Tensor = self.features(x) / self.scale
        return features


class Classifier(Protocol):
    """What the constraints need of a classifier, a module that maps images [B, C, H, W] to logits [B, classes]."""

    image_shape: tuple[int, int, int]
    classes: int

    def features(self) -> nn.Module:
        """The layers that give the features of FRE: images [B, C, H, W] -> a feature map [B, F, H', W']."""

    def __call__(self, x: Tensor) -> Tensor:
        """Logits."""


def build_classifier(
    name: str, image_shape: Sequence[int], classes: int, options: Mapping[str, int] | None = None
) -> nn.Module:
    """A freshly initialised :class:`Classifier` for images of ``image_shape`` (C, H, W).

    Raises:
        ValueError: an unknown name (the message lists the known ones) or option, or a value that the class refuses.

    Example:
        >>> build_classifier("resnet", (3, 32, 32), classes=10).classes
        10
    """
    if name not in CLASSIFIERS:
        meant = did_you_mean(name, CLASSIFIERS)
        raise ValueError(f"unknown classifier {name!r}{meant}; known are {', '.join(CLASSIFIERS)}")
    check_options(f"classifier {name!r}", CLASSIFIERS[name], options or {}, of_data=("image_shape", "classes"))
    try:
        return CLASSIFIERS[name](image_shape, classes, **(options or {}))
    except TypeError as error:  # values of another type, from a file that somebody has written
        raise ValueError(f"classifier {name!r} refuses its options: {error}") from error


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

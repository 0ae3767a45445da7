"""Names of the models that can be trained. A new model is one more entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from torch import Tensor, nn


class VariationalOutput(Protocol):
    """What a model returns for a batch x [B, C, H, W]."""

    @property
    def x_hat(self) -> Tensor:
        """The reconstruction, [B, C, H, W]."""

    @property
    def kl(self) -> Tensor:
        """The KL of each example in nats, [B]."""


@dataclass(frozen=True)
class ModelEntry:
    """A model the registry knows.

    Attributes:
        class_name: its class in `geco_ext.models`.
        takes_context: whether it is conditional where the data have a context; other models are not given one.
    """

    class_name: str
    takes_context: bool


MODELS = {
    "nvp": ModelEntry("NVPVAE", takes_context=False),
    "convdraw": ModelEntry("ConvDraw", takes_context=True),
    "unconditional-convdraw": ModelEntry("ConvDraw", takes_context=False),
}


def build_model(
    name: str,
    image_shape: Sequence[int],
    context_shape: Sequence[int] | None = None,
    options: Mapping[str, int] | None = None,
) -> nn.Module:
    """A freshly initialised model for images of ``image_shape`` (C, H, W).

    Raises:
        ValueError: an unknown name or option, or a shape or option the model refuses.
    """
    entry = model_entry(name)
    arguments = {"context_shape": context_shape} if entry.takes_context else {}
    try:
        model = getattr(import_module("geco_ext.models"), entry.class_name)(image_shape, **arguments, **(options or {}))
    except TypeError as error:
        raise ValueError(f"model {name!r} refuses its options: {error}") from error
    return cast(nn.Module, model)


def model_entry(name: str) -> ModelEntry:
    """What the registry knows of a model.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; known are {', '.join(MODELS)}")
    return MODELS[name]

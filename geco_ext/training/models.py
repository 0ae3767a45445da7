"""The models of a run, from the text that names them: those of this package, and a user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

from torch import Tensor, nn

from geco_ext.models import NVPVAE, ConvDraw
from geco_ext.models import VariationalOutput as Output
from geco_ext.training.calls import Call
from geco_ext.training.model_options import check_options
from geco_ext.training.own_code import own_call, own_class
from geco_ext.training.settings import unknown_model


@dataclass(frozen=True)
class ModelEntry:
    """How a model is made.

    Attributes:
        model: its class, or what builds it: called with the image's shape, with the context's where it takes one.
        takes_context: whether it is conditional where the data have a context; other models are not given one.
        about: what it is, in a line.
        options_of: what has its options as arguments; None: ``model``.
    """

    model: Callable[..., nn.Module]
    takes_context: bool
    about: str = ""
    options_of: Callable[..., nn.Module] | None = None


OF_DATA = ("image_shape", "context_shape")
"""Arguments of a model that the data give."""

MODELS = {
    "nvp": ModelEntry(NVPVAE, takes_context=False, about="VAE+NVP: convolutional, with a RealNVP posterior."),
    "convdraw": ModelEntry(
        ConvDraw,
        takes_context=True,
        about="ConvDRAW: draws an image in steps; conditional where the data have a context.",
    ),
    "unconditional-convdraw": ModelEntry(
        ConvDraw, takes_context=False, about="ConvDRAW that is not given the context of the data."
    ),
}

PROTOCOL = (
    "a model's forward(x) takes images [B, C, H, W] and gives an object or a dict with x_hat, of x's shape, and kl, "
    "nats of shape [B], or a tuple that begins with these two"
)
"""What a model of a user's own has to be."""


METHODS = {"sample": "sample(n)", "encode": "embed(x)", "interpolate": "interpolate(a, b, steps)"}
"""The method of a model that a command calls, beside ``forward``."""


class VariationalOutput(Protocol):
    """What a model returns for a batch x [B, C, H, W]."""

    @property
    def x_hat(self) -> Tensor:
        """The reconstruction, [B, C, H, W]."""

    @property
    def kl(self) -> Tensor:
        """The KL of each example in nats, [B]."""


def build_model(
    name: str,
    image_shape: Sequence[int],
    context_shape: Sequence[int] | None = None,
    options: Mapping[str, int] | None = None,
) -> nn.Module:
    """A freshly initialised model for images of ``image_shape`` (C, H, W).

    A class of a user's own, ``mine.py:Mine(latent=8)``, is called with ``image_shape`` before its arguments if its
    first one has that name, by name if a later one has; with ``context_shape``, if it takes it, by name. `PROTOCOL`
    says what it has to be. Where its ``forward`` takes a ``context`` it is given that of the data; with several
    processes a ``noise`` (:class:`~geco_ext.models.WholeBatchNoise`), without which they draw the same random numbers.

    Raises:
        ValueError: an unknown name or option, or a shape or option the model refuses.
    """
    entry = model_entry(name)
    arguments = {"context_shape": context_shape} if entry.takes_context else {}
    check_options(f"model {name!r}", entry.options_of or entry.model, options or {}, OF_DATA)
    try:
        return entry.model(image_shape, **arguments, **(options or {}))
    except TypeError as error:  # values of another type, from a file that somebody has written
        raise ValueError(f"model {name!r} refuses its options: {error}") from error


def model_entry(name: str) -> ModelEntry:
    """How the model of a name is made.

    Raises:
        ValueError: an unknown name, and the message lists the known ones; a user's own class that cannot be imported.
    """
    if name in MODELS:
        return MODELS[name]
    call = own_call(name)
    if call is None:
        raise ValueError(unknown_model(name, MODELS))
    try:
        cls = own_class(call, (nn.Module,))
    except ValueError as error:
        raise ValueError(f"model {name!r}: {error}") from error
    takes_context = takes_argument(cast(type[nn.Module], cls).forward, "context")
    return ModelEntry(partial(_build_own, name, cls, call), takes_context, options_of=cls)


def _build_own(
    name: str,
    cls: type[nn.Module],
    call: Call,
    image_shape: Sequence[int],
    context_shape: Sequence[int] | None = None,
    **options: Any,
) -> nn.Module:
    names = [*inspect.signature(cls).parameters]
    given = {**call.named, **options}
    first = (tuple(image_shape),) if names[:1] == ["image_shape"] and "image_shape" not in given else ()
    if "image_shape" in names[1:]:
        given.setdefault("image_shape", tuple(image_shape))
    if "context_shape" in names:
        given.setdefault("context_shape", None if context_shape is None else tuple(context_shape))
    try:
        model = cls(*first, *call.arguments, **given)
    except Exception as error:  # whatever the user's own class raises
        raise ValueError(f"model {name!r} cannot be made ({type(error).__name__}: {error})") from error
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"model {name!r} has no parameters to train")
    return model


def takes_argument(function: Callable[..., Any], name: str) -> bool:
    """Whether a function can be given an argument by this name."""
    return name in inspect.signature(function).parameters


def unavailable_commands(model: nn.Module) -> dict[str, str]:
    """The commands that a model does not serve, and the method each would need."""
    return {command: method for command, method in METHODS.items() if not hasattr(model, method.partition("(")[0])}


def as_output(returned: Any) -> VariationalOutput:
    """What a model has returned, with its two parts by their names.

    Raises:
        ValueError: it is not what `PROTOCOL` says.

    Example:
        >>> as_output((torch.zeros(2, 1, 8, 8), torch.ones(2))).kl
        tensor([1., 1.])
    """
    if hasattr(returned, "x_hat") and hasattr(returned, "kl"):
        return returned  # type: ignore[no-any-return]
    if isinstance(returned, Mapping) and returned.keys() >= {"x_hat", "kl"}:
        return Output(returned["x_hat"], returned["kl"], returned.get("z"))  # type: ignore[arg-type]  # z may be missing
    if isinstance(returned, tuple | list) and len(returned) >= 2:
        return Output(returned[0], returned[1], None)  # type: ignore[arg-type]
    raise ValueError(f"forward gave {described(returned)}; {PROTOCOL}")


def check_output(output: VariationalOutput, x: Tensor) -> None:
    """Refuse what a criterion cannot use.

    Raises:
        ValueError: x_hat or kl of another kind or shape than `PROTOCOL` says.
    """
    x_hat, kl = output.x_hat, output.kl
    if not isinstance(x_hat, Tensor) or x_hat.shape != x.shape:
        raise ValueError(f"x_hat is {described(x_hat)} for x of shape {tuple(x.shape)}; {PROTOCOL}")
    if not isinstance(kl, Tensor) or tuple(kl.shape) not in ((), (len(x),), (len(x), 1)):
        raise ValueError(f"kl is {described(kl)} for {len(x)} images; {PROTOCOL}")


def described(value: Any) -> str:
    """What somebody's code has returned, in words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(repr, value))}"
    return f"a {type(value).__name__}"

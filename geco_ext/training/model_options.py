"""The arguments of a model that `--model-option` gives."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any

from geco_ext.nearest import did_you_mean


def check_options(what: str, model: Callable[..., Any], options: Iterable[str], of_data: Collection[str]) -> None:
    """Refuse options that a model does not take.

    Args:
        what: the model in words, for the message.
        model: what is called with the options.
        options: their names.
        of_data: names of arguments that the data give, which are no options.

    Raises:
        ValueError: an option that is none of its arguments; the message lists these, with their defaults.

    Example:
        >>> check_options("model 'mine'", lambda image_shape, latent=8: None, ["latent"], of_data=["image_shape"])
    """
    arguments = inspect.signature(model).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in arguments):
        return
    taken = {
        each.name: each.name if each.default is each.empty else f"{each.name}={each.default}"
        for each in arguments
        if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD) and each.name not in of_data
    }
    for name in options:
        if name not in taken:
            listed = f"it takes {', '.join(taken.values())}" if taken else "it takes none"
            raise ValueError(f"{what} has no option {name!r}{did_you_mean(name, taken)}; {listed}")

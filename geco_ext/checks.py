"""Checks of what users pass: every message names the argument, what came and what was expected."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class NoToleranceError(ValueError):
    """A kappa at which the scale of a constraint is zero; earlier versions took it."""


def check_prediction(x_hat: Tensor, x: Tensor, names: tuple[str, str] = ("x_hat", "x"), minimum_rank: int = 1) -> None:
    """Two float tensors of one non-empty shape on one device."""
    for name, tensor in zip(names, (x_hat, x), strict=True):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: got {type(tensor).__name__}, expected a tensor")
        if not tensor.dtype.is_floating_point:
            raise TypeError(f"{name}: got dtype {tensor.dtype}, expected a floating-point tensor")
    if x_hat.shape != x.shape:
        raise ValueError(
            f"{names[0]} and {names[1]}: got shapes {tuple(x_hat.shape)} and {tuple(x.shape)}, expected the same shape"
        )
    if x_hat.device != x.device:
        raise ValueError(
            f"{names[0]} and {names[1]}: got devices {x_hat.device} and {x.device}, expected the same device"
        )
    if x_hat.dim() < minimum_rank:
        expected = "[B, C, H, W]" if minimum_rank == 4 else "[B, ...]"
        raise ValueError(f"{names[0]}: got shape {tuple(x_hat.shape)}, expected {expected}")
    if x_hat.numel() == 0:
        raise ValueError(f"{names[0]}: got the empty shape {tuple(x_hat.shape)}, expected at least one example")


def check_images(x_hat: Tensor, x: Tensor, names: tuple[str, str] = ("x_hat", "x")) -> None:
    """As :func:`check_prediction`, and four-dimensional."""
    check_prediction(x_hat, x, names)
    if x_hat.dim() != 4:
        raise ValueError(f"{names[0]}: got shape {tuple(x_hat.shape)}, expected [B, C, H, W] for a patch constraint")


def check_patch_fits(x_hat: Tensor, patch_size: int, name: str = "x_hat") -> None:
    """At least one fully contained patch."""
    height, width = x_hat.shape[-2:]
    if patch_size > height or patch_size > width:
        raise ValueError(
            f"patch_size: got {patch_size}, expected at most the image's height and width, {name} is {height} x {width}"
        )


def check_kl(kl: Tensor, batch: int, device: torch.device) -> Tensor:
    """0-d, [B] or [B, 1], float, on the images' device; returns it as 0-d or [B]."""
    if not isinstance(kl, Tensor):
        raise TypeError(f"kl: got {type(kl).__name__}, expected a tensor, 0-d or [B], in nats")
    if not kl.dtype.is_floating_point:
        raise TypeError(f"kl: got dtype {kl.dtype}, expected a floating-point tensor")
    if kl.shape not in ((), (batch,), (batch, 1)):
        raise ValueError(
            f"kl: got shape {tuple(kl.shape)}, expected 0-d, [{batch}] or [{batch}, 1], one number per example"
        )
    if kl.device != device:
        raise ValueError(f"kl: got device {kl.device}, expected {device}, the device of x_hat")
    return kl.reshape(batch) if kl.dim() == 2 else kl


def check_class_scores(scores: Tensor, batch: int, name: str) -> None:
    """Float [B, classes]."""
    if not isinstance(scores, Tensor) or not scores.dtype.is_floating_point:
        got = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"{name}: got {got}, expected floating-point scores [B, classes]")
    if scores.dim() != 2 or scores.shape[0] != batch or scores.shape[1] == 0:
        raise ValueError(f"{name}: got shape {tuple(scores.shape)}, expected [{batch}, classes]")


def check_class_gradient(gradient: str) -> str:
    """Whose gradient a class probability has."""
    if gradient not in ("probability", "log_probability"):
        raise ValueError(f"gradient: got {gradient!r}, expected 'probability' or 'log_probability'")
    return gradient


def check_labels_are_no_weights(labels: object, x_hat: Tensor) -> None:
    """Whether any constraint reads them or none: a mask that is passed by position would be ignored in silence."""
    if not isinstance(labels, Tensor):
        return
    dtype, shape = labels.dtype, getattr(x_hat, "shape", ())
    are_integers = not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
    if are_integers and (len(shape) < 2 or labels.shape != shape):
        return
    raise ValueError(
        f"labels: got dtype {dtype} of shape {tuple(labels.shape)}, expected integers {list(shape[:1])}; "
        "weights of elements go by name, weight=..."
    )


def check_labels(labels: Tensor | None, scores: Tensor) -> Tensor:
    """Integers [B] on the scores' device, as int64; on the CPU also within range (a GPU would have to wait)."""
    batch, classes = scores.shape
    if labels is None:
        raise ValueError(f"labels: got None, expected integers of shape [{batch}] for a classification constraint")
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels: got {type(labels).__name__}, expected an integer tensor of shape [{batch}]")
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise ValueError(f"labels: got dtype {labels.dtype}, expected integers of shape [{batch}]")
    if labels.shape != (batch,):
        raise ValueError(f"labels: got shape {tuple(labels.shape)}, expected [{batch}]")
    if labels.device != scores.device:
        raise ValueError(f"labels: got device {labels.device}, expected {scores.device}, the device of x_hat")
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = labels.aminmax()
        if low < 0 or high >= classes:
            raise ValueError(f"labels: got values from {int(low)} to {int(high)}, expected 0 to {classes - 1}")
    return labels.to(torch.int64)


def check_kappa_non_negative(kappa: float) -> float:
    """Finite and not negative."""
    return _check_kappa(kappa, lambda value: value >= 0.0, "a finite number >= 0")


def check_kappa_correlation(kappa: float) -> float:
    """A correlation: above -1, at most 1."""
    return _check_kappa(kappa, lambda value: -1.0 < value <= 1.0, "a number in (-1, 1]")


def check_kappa_probability(kappa: float) -> float:
    """A probability."""
    return _check_kappa(kappa, lambda value: 0.0 <= value <= 1.0, "a number in [0, 1]")


def _check_kappa(kappa: float, accept: Callable[[float], bool], expected: str) -> float:
    value = _number(kappa, "kappa", expected)
    if not math.isfinite(value) or not accept(value):
        raise ValueError(f"kappa: got {kappa}, expected {expected}")
    return value


def check_positive_integer(value: int, name: str) -> int:
    """An integer of at least one, NumPy's among them."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name}: got {value!r}, expected an integer >= 1")
    return number


def check_positive(value: float, name: str) -> float:
    """Finite and above zero."""
    number = _number(value, name, "a finite number > 0")
    if not math.isfinite(number) or number <= 0.0:
        raise ValueError(f"{name}: got {value!r}, expected a finite number > 0")
    return number


def check_non_negative(value: float, name: str) -> float:
    """Finite and not negative."""
    number = _number(value, name, "a finite number >= 0")
    if not math.isfinite(number) or number < 0.0:
        raise ValueError(f"{name}: got {value!r}, expected a finite number >= 0")
    return number


def check_alpha(alpha: float) -> float:
    """A memory in [0, 1)."""
    number = _number(alpha, "alpha", "a number in [0, 1)")
    if not 0.0 <= number < 1.0:
        raise ValueError(f"alpha: got {alpha!r}, expected a number in [0, 1)")
    return number


def _number(value: Any, name: str, expected: str) -> float:
    """A text of digits is none: it has been left unread somewhere."""
    try:
        if not isinstance(value, str | bytes | bytearray):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{name}: got {value!r}, expected {expected}")

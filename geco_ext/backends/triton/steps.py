"""A criterion's calls on images alone, where everything about them is usual: launches that are known already.

Checks, plan and Triton's own look at the arguments of a launch take longer than the kernel where images are small. Here
tensors are recognised by all that those depend on, and a kernel that is known goes off with new addresses.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geco_ext.backends.allocation import loss_dtype, new_empty, new_gradient
from geco_ext.backends.base import ENVIRONMENT_VARIABLE, PLAIN_TYPES
from geco_ext.backends.triton.device import on_device
from geco_ext.backends.triton.loss import Arguments, Launch, counter, launch_of, scaling_of
from geco_ext.contract import IMAGE, ImageStep, LossCall, TakenStep, UpdateSettings, parse_terms

ALIGNMENT = 16  # bytes: Triton compiles other code for addresses that are not multiples of it


MOST_KNOWN = 256  # kinds of tensors of a criterion: a batch of another size is another kind


class _Known(NamedTuple):
    """A step on tensors that look alike."""

    launch: Launch
    arguments: Arguments  # without the tensors of a call
    partials: int
    rounds: bool


def image_step(
    terms: str, update: UpdateSettings | None, block: Tensor, refuses: Callable[[LossCall], str | None]
) -> ImageStep:
    """The two halves of a step, for one criterion."""
    device = block.device
    steps: dict[Any, _Known | None] = {}
    scalings: dict[Any, tuple[Launch, Any]] = {}

    def forward(x_hat: Tensor, x: Tensor, kl: Tensor) -> TakenStep | None:
        grad_enabled = torch.is_grad_enabled()
        if ENVIRONMENT_VARIABLE in os.environ or (grad_enabled and x.requires_grad):
            return None
        looks = _look(device, x_hat), _look(device, x), _look(device, kl)
        if None in looks:
            return None
        of_image, of_kl = grad_enabled and x_hat.requires_grad, grad_enabled and kl.requires_grad
        key = (of_image, of_kl, looks)
        if steps.get(key, ...) is None:
            return None
        image_gradient = new_gradient(x_hat) if of_image else None
        kl_gradient = new_gradient(kl) if of_kl else None
        loss = new_empty(block, (), loss_dtype([x_hat]))
        with on_device(device):
            known = steps.get(key)
            if known is None:
                call = _call(terms, update, block, (x_hat, x, kl), [image_gradient, kl_gradient])
                if len(steps) >= MOST_KNOWN:
                    steps.clear()
                if not _is_usual(terms, x_hat, x, kl) or refuses(call) is not None:
                    steps[key] = None
                    return None
                launch, arguments = launch_of(call, loss, None)
                pairs = (image_gradient, x_hat), (kl_gradient, kl)
                rounds = any(gradient is not None and gradient.dtype != tensor.dtype for gradient, tensor in pairs)
                steps[key] = _Known(launch, *_without_tensors(arguments), rounds)
            else:
                launch, arguments, partials, rounds = known
                arguments = arguments._replace(
                    predictions=(x_hat, kl),
                    targets=(x, None),
                    gradients=(image_gradient, kl_gradient),
                    finished=counter(device),
                    partials=new_empty(block, (partials,)),
                    loss=loss,
                )
            launch(arguments)
        return loss, kl_gradient, image_gradient, rounds

    def backward(kl_gradient: Tensor | None, image_gradient: Tensor | None, incoming: Tensor) -> bool:
        look = _look(device, incoming)
        if ENVIRONMENT_VARIABLE in os.environ or incoming.numel() != 1 or look is None:
            return False
        buffers = tuple([gradient for gradient in (kl_gradient, image_gradient) if gradient is not None])
        key = (look, *[(buffer.numel(), buffer.dtype) for buffer in buffers])
        known = scalings.get(key)
        if known is None:
            known = scaling_of(buffers, buffers, incoming)
            scalings[key] = known[0], known[1]._replace(gradients=(), outputs=(), factor=None)
        launch, arguments = known
        with on_device(device):
            launch(arguments._replace(gradients=buffers, outputs=buffers, factor=incoming))
        return True

    return ImageStep(forward, backward)


def _look(device: torch.device, tensor: Tensor) -> tuple[Any, ...] | None:
    """What plans and compilations depend on. None where its memory is not what it says, or not on the device."""
    if type(tensor) not in PLAIN_TYPES or tensor.device != device or tensor.is_neg():
        return None
    try:
        address = tensor.data_ptr()
    except RuntimeError:  # a tensor without storage
        return None
    return None if address == 0 else (tensor.shape, tensor.stride(), tensor.dtype, address % ALIGNMENT == 0)


def _is_usual(terms: str, x_hat: Tensor, x: Tensor, kl: Tensor) -> bool:
    """Whether the checks of the path of all calls would say nothing."""
    shape = x_hat.shape
    if shape != x.shape or len(shape) == 0 or tuple(kl.shape) not in ((), (shape[0],)):
        return False
    if not all(tensor.dtype.is_floating_point for tensor in (x_hat, x, kl)):
        return False
    for term in parse_terms(terms):
        if term.rows > 1 and (len(shape) < 2 or shape[1] != term.rows):
            return False
        if term.is_windowed and (len(shape) != 4 or min(shape[2:]) < term.patch_size):
            return False
    return True


def _call(
    terms: str,
    update: UpdateSettings | None,
    block: Tensor,
    images: tuple[Tensor, Tensor, Tensor],
    gradients: list[Tensor | None],
) -> LossCall:
    x_hat, x, kl = images
    batch = x_hat.shape[0] if x_hat.dim() else 1
    return LossCall([x_hat], [x], [None], kl, block, terms, (IMAGE,), gradients, batch, x_hat.numel() // batch, update)


def _without_tensors(arguments: Arguments) -> tuple[Arguments, int]:
    """What is kept between launches holds no memory of a call; and how many partial sums there are."""
    kept = arguments._replace(predictions=(), targets=(), gradients=(), finished=None, partials=None, loss=None)
    return kept, 0 if arguments.partials is None else arguments.partials.numel()

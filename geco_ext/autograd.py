"""The operators under autograd: gradients are made in the forward pass, backward only multiplies them.

The multiplier of a step is known before the step starts, so the pass that measures the constraints also writes
d (lambda^T C) / d x_hat. Backward scales that buffer by the incoming gradient: in place when nothing will read it
again, and not at all when the incoming gradient is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geco_ext import backends, ops
from geco_ext.terms import Request, UpdateSettings


class Lagrangian(torch.autograd.Function):
    """Loss of a request as a function of its predictions, its targets and kl."""

    @staticmethod
    def forward(
        ctx: Any,
        block: Tensor,
        kl: Tensor | None,
        terms: str,
        owners: tuple[int, ...],
        wants_gradient: tuple[bool, ...],
        targets_want_gradient: bool,
        batch: int,
        image_elements: int,
        update: UpdateSettings | None,
        *inputs: Tensor | None,
    ) -> Tensor:
        """Compute the loss; with ``update`` the state block moves. ``inputs``: all predictions, then all targets."""
        count = len(owners)
        predictions, targets = list(inputs[:count]), list(inputs[count:])
        request = Request(
            predictions, targets, kl, block, terms, owners, list(wants_gradient), batch, image_elements, update  # type: ignore[arg-type]
        )
        # Before the state moves: both passes belong to the same multipliers.
        target_gradients = _target_gradients(request) if targets_want_gradient else [None] * count
        loss, made = ops.lagrangian(request)
        _keep(ctx, request, made, target_gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Scale the buffers of the forward pass."""
        kl_gradient, *gradients = _incoming_times_buffers(ctx, grad_outputs[0])
        return None, kl_gradient, None, None, None, None, None, None, None, *gradients


class GlobalLagrangian(torch.autograd.Function):
    """The loss of one process of several; constraints, state and gradients are those of the batch of all.

    The gradient buffers are written before the sums of the other processes are known, so backward also multiplies by
    processes * examples here / examples everywhere: averaged over processes, as DistributedDataParallel does, that is
    the gradient of the mean over all examples.
    """

    @staticmethod
    def forward(
        ctx: Any,
        group: Any,
        block: Tensor,
        kl: Tensor,
        terms: str,
        owners: tuple[int, ...],
        wants_gradient: tuple[bool, ...],
        targets_want_gradient: bool,
        batch: int,
        image_elements: int,
        update: UpdateSettings,
        *inputs: Tensor | None,
    ) -> Tensor:
        """Sum here, add up over the group, update the state (the same bits everywhere)."""
        count = len(owners)
        predictions, targets = list(inputs[:count]), list(inputs[count:])
        request = Request(
            predictions, targets, kl, block, terms, owners, list(wants_gradient), batch, image_elements, update  # type: ignore[arg-type]
        )
        target_gradients = _target_gradients(request) if targets_want_gradient else [None] * count
        sums, made = ops.constraint_sums(request)
        torch.distributed.all_reduce(sums, group=group)
        world_size = torch.distributed.get_world_size(group)
        loss, ctx.factor = ops.update_from_sums(request, sums, world_size)
        _keep(ctx, request, made, target_gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Scale the buffers of the forward pass by the incoming gradient and this process's share."""
        incoming = grad_outputs[0] * ctx.factor.to(grad_outputs[0].dtype)
        kl_gradient, *gradients = _incoming_times_buffers(ctx, incoming)
        return None, None, kl_gradient, None, None, None, None, None, None, None, *gradients


def _target_gradients(request: Request) -> list[Tensor | None]:
    """Gradients by the targets: every constraint is symmetric in its pair, so a second pass with the roles swapped."""
    wanted = [t is not None and t.requires_grad for t in request.targets]
    swapped = request._replace(
        predictions=[p if t is None or not t.is_floating_point() else t for p, t in zip(request.predictions, request.targets, strict=True)],
        targets=[t if t is None or not t.is_floating_point() else p for p, t in zip(request.predictions, request.targets, strict=True)],
        kl=None,
        wants_gradient=[*wanted, False],
        update=None,
    )
    made = iter(ops.lagrangian(swapped)[1])
    return [next(made) if want else None for want in wanted]


def _keep(ctx: Any, request: Request, made: list[Tensor], target_gradients: Sequence[Tensor | None]) -> None:
    """Keep what backward returns, in its order: kl, predictions, targets."""
    buffers = iter(made)
    of_predictions = [next(buffers) if wants else None for wants in request.wants_gradient[:-1]]
    of_kl = next(buffers) if request.wants_gradient[-1] and request.kl is not None else None
    gradients = [of_kl, *of_predictions, *target_gradients]
    inputs = [request.kl, *request.predictions, *request.targets]
    ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in inputs]
    if torch.compiler.is_compiling():
        ctx.present = [gradient is not None for gradient in gradients]
        ctx.save_for_backward(*[gradient for gradient in gradients if gradient is not None])
    else:
        # Not as saved tensors: backward hands the buffers themselves on, and may then hold no reference of its own.
        ctx.gradients = gradients


def _incoming_times_buffers(ctx: Any, incoming: Tensor) -> Sequence[Tensor | None]:
    if torch.compiler.is_compiling():
        saved = iter(ctx.saved_tensors)
        return [
            (next(saved) * incoming).to(dtype) if present else None
            for present, dtype in zip(ctx.present, ctx.dtypes, strict=True)
        ]
    if torch.is_grad_enabled():  # create_graph=True
        return _without_second_derivative(ctx, incoming)  # type: ignore[no-any-return]
    return _scale(ctx, incoming)


def _scale(ctx: Any, incoming: Tensor) -> Sequence[Tensor | None]:
    gradients = ctx.gradients
    if gradients is None:
        raise RuntimeError(
            "Trying to backward through the GECO loss a second time, but its gradients have been handed on. "
            "Specify retain_graph=True the first time."
        )
    keep_graph = torch._C._autograd._get_current_graph_task_keep_graph()
    if not keep_graph:
        ctx.gradients = None
    results: list[Tensor | None] = []
    buffers, outputs = [], []
    for gradient, dtype in zip(gradients, ctx.dtypes, strict=True):
        if gradient is None:
            results.append(None)
            continue
        in_place = not keep_graph and gradient.dtype == dtype
        output = gradient if in_place else torch.empty_like(gradient, dtype=dtype)
        buffers.append(gradient)
        outputs.append(output)
        results.append(output)
    if buffers:
        backends.select_for_scaling(incoming.device).scale_gradients(buffers, outputs, incoming)
    return results


@once_differentiable
def _without_second_derivative(ctx: Any, incoming: Tensor) -> Any:
    return tuple(_scale(ctx, incoming))

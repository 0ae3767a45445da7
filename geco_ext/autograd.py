"""The operators under autograd: gradients are made in the forward pass, backward only multiplies them.

The multiplier of a step is known before the step starts, so the pass that measures the constraints also writes
d (lambda^T C) / d x_hat. Backward scales that buffer by the incoming gradient: in place when nothing will read it
again, and not at all when the incoming gradient is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from geco_ext import backends, ops
from geco_ext.backends.allocation import empty_like, new_gradient
from geco_ext.terms import Made, Request, UpdateSettings


class Call(NamedTuple):
    """The constants of an operator call: all of a request but its tensors."""

    terms: str
    owners: tuple[int, ...]
    wants_gradient: tuple[bool, ...]  # of each prediction, then of kl
    targets_want_gradient: bool
    batch: int
    image_elements: int
    update: UpdateSettings | None


class Lagrangian(torch.autograd.Function):
    """Loss of a call as a function of kl and of its predictions and targets (``inputs``, in this order)."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        """Call, state block, kl, inputs -> loss; with ``call.update`` the state block moves."""
        # One name for all arguments: torch.compile drops ctx where their number happens to equal that of the names.
        call, block, kl, *inputs = arguments
        request = _request(call, block, kl, inputs)
        # Before the state moves: both passes belong to the same multipliers.
        target_gradients = _target_gradients(request) if call.targets_want_gradient else None
        loss = ops.lagrangian(request)
        _keep(ctx, request, target_gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Scale the buffers of the forward pass."""
        return None, None, *_incoming_times_buffers(ctx, grad_outputs[0])


class GlobalLagrangian(torch.autograd.Function):
    """The loss of one process of several; constraints, state and gradients are those of the batch of all.

    The gradient buffers are written before the sums of the other processes are known, so backward also multiplies by
    processes * examples here / examples everywhere: averaged over processes, as DistributedDataParallel does, that is
    the gradient of the mean over all examples.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        """Group, call, state block, kl, inputs: sum here, add up over the group, update (the same bits everywhere)."""
        group, call, block, kl, *inputs = arguments
        request = _request(call, block, kl, inputs)
        target_gradients = _target_gradients(request) if call.targets_want_gradient else None
        sums = ops.constraint_sums(request)
        torch.distributed.all_reduce(sums, group=group)
        loss, ctx.factor = ops.update_from_sums(request, sums, torch.distributed.get_world_size(group))
        _keep(ctx, request, target_gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Scale the buffers of the forward pass by the incoming gradient and this process's share."""
        incoming = grad_outputs[0] * ctx.factor.to(grad_outputs[0].dtype)
        return None, None, None, *_incoming_times_buffers(ctx, incoming)


def _request(call: Call, block: Tensor, kl: Tensor | None, inputs: Sequence[Tensor | None]) -> Request:
    count = len(call.owners)
    # A type in quotes: TorchDynamo of PyTorch 2.6 does not trace list[Tensor].
    predictions, targets = cast("list[Tensor]", list(inputs[:count])), list(inputs[count:])
    return Request(
        predictions,
        targets,
        kl,
        block,
        call.terms,
        call.owners,
        _buffers([*predictions, kl], call.wants_gradient),
        call.batch,
        call.image_elements,
        call.update,
    )


def _buffers(inputs: Sequence[Tensor | None], wants_gradient: Sequence[bool]) -> list[Tensor | None]:
    return [
        new_gradient(tensor) if wants and tensor is not None else None
        for tensor, wants in zip(inputs, wants_gradient, strict=True)
    ]


def _target_gradients(request: Request) -> list[Tensor | None]:
    """Gradients by the targets: every constraint is symmetric in its pair, so a second pass with the roles swapped."""
    wanted = [t is not None and t.requires_grad for t in request.targets]
    pairs = [
        (p, t) if t is None or not t.is_floating_point() else (t, p)
        for p, t in zip(request.predictions, request.targets, strict=True)
    ]
    gradients = _buffers([pair[0] for pair in pairs], wanted)
    swapped = request._replace(
        predictions=[pair[0] for pair in pairs],
        targets=[pair[1] for pair in pairs],
        kl=None,
        gradients=[*gradients, None],
        update=None,
    )
    ops.lagrangian(swapped)
    return gradients


class MadeLoss(torch.autograd.Function):
    """A loss that is computed already, with its gradients by kl and x_hat: this only tells autograd."""

    @staticmethod
    def forward(ctx: Any, made: Made, kl: Tensor, x_hat: Tensor) -> Tensor:
        """``made``: what the inputs have given."""
        loss, *ctx.gradients, ctx.rounds = made
        if ctx.rounds:
            ctx.dtypes = [kl.dtype, x_hat.dtype]
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Scale the gradients; in the usual case, where they are wanted once and as they are, in one call."""
        (incoming,), gradients = grad_outputs, ctx.gradients
        usual = gradients is not None and not ctx.rounds and not torch.is_grad_enabled()
        if usual and not _keeps_graph() and backends.image_step_backward(gradients[0], gradients[1], incoming):
            ctx.gradients = None
            return None, *gradients
        return None, *_incoming_times_buffers(ctx, incoming)


def _keep(ctx: Any, request: Request, target_gradients: list[Tensor | None] | None) -> None:
    """Keep what backward returns, in its order: kl, predictions, targets."""
    *of_predictions, of_kl = request.gradients
    gradients = [of_kl, *of_predictions, *(target_gradients or [None] * len(request.targets))]
    inputs = (request.kl, *request.predictions, *request.targets)
    ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in inputs]
    if torch.compiler.is_compiling():
        ctx.present = [gradient is not None for gradient in gradients]
        ctx.save_for_backward(*[gradient for gradient in gradients if gradient is not None])
        return
    # Not as saved tensors: backward hands the buffers themselves on, and may then hold no reference of its own.
    ctx.gradients = gradients
    ctx.rounds = any(g is not None and g.dtype != dtype for g, dtype in zip(gradients, ctx.dtypes, strict=True))


def _incoming_times_buffers(ctx: Any, incoming: Tensor) -> Sequence[Tensor | None]:
    if torch.compiler.is_compiling():
        saved = iter(ctx.saved_tensors)
        return [
            (next(saved) * incoming).to(dtype) if present else None
            for present, dtype in zip(ctx.present, ctx.dtypes, strict=True)
        ]
    if torch.is_grad_enabled():  # create_graph=True
        with torch.no_grad():
            gradients = _scale(ctx, incoming)
        return [g if g is None else _refusing_derivatives(g) for g in gradients]
    return _scale(ctx, incoming)


def _scale(ctx: Any, incoming: Tensor) -> Sequence[Tensor | None]:
    gradients: list[Tensor | None] | None = ctx.gradients
    if gradients is None:
        raise RuntimeError(
            "Trying to backward through the GECO loss a second time, but its gradients have been handed on. "
            "Specify retain_graph=True the first time."
        )
    backend = backends.select_for_scaling(incoming.device)
    if not _keeps_graph():
        ctx.gradients = None
        if not ctx.rounds:  # nobody reads the buffers again: they become the gradients
            backend.scale_gradients_in_place([g for g in gradients if g is not None], incoming)
            return gradients
    dtypes = ctx.dtypes if ctx.rounds else [None] * len(gradients)
    outputs = [None if g is None else empty_like(g, dtype=dtype) for g, dtype in zip(gradients, dtypes, strict=True)]
    pairs = [(g, output) for g, output in zip(gradients, outputs, strict=True) if g is not None and output is not None]
    backend.scale_gradients([g for g, _ in pairs], [output for _, output in pairs], incoming)
    return outputs


_keeps_graph = torch._C._autograd._get_current_graph_task_keep_graph


def _refusing_derivatives(gradient: Tensor) -> Any:
    return _NoSecondDerivative.apply(gradient.detach().requires_grad_())  # type: ignore[no-untyped-call]


class _NoSecondDerivative(torch.autograd.Function):
    """Identity whose backward refuses: the gradients are numbers the kernels made, not functions of the inputs."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        """The gradient itself."""
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Refuse."""
        raise RuntimeError("the GECO loss has no second derivative: its gradients are computed with its value")

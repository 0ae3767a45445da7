"""The loss under autograd, and its operators as PyTorch knows them.

The multiplier of a step is known before the step starts, so the pass that measures the constraints also writes
d (lambda^T C) / d x_hat. Backward scales that buffer by the incoming gradient: in place when nothing will read it
again, and not at all when the incoming gradient is one.

A call on plain tensors goes straight to the backend; everything that looks at or rewrites operator calls
(``torch.compile``, ``torch.export``, dispatch modes, tensor subclasses, ``torch.func``) sees the declared operators,
and multiplications in backward. Their kernels call the same backends, so both ways compute the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from geco_ext.backends.allocation import empty_like, loss_dtype, new_gradient
from geco_ext.contract import ImageStep, LossCall, TakenStep, UpdateSettings, count_rows
from geco_ext.ops import dispatch
from geco_ext.ops.refused_derivatives import refuse_forward_mode, refusing_second_derivative

_modes = torch._C._len_torch_dispatch_stack
_transforms = torch._C._are_functorch_transforms_active


class _Constants(NamedTuple):
    """What a call has beside its tensors."""

    terms: str
    owners: tuple[int, ...]
    wants_gradient: tuple[bool, ...]  # of each prediction, then of kl
    targets_want_gradient: bool
    batch: int
    image_elements: int
    update: UpdateSettings | None


def lagrangian(
    predictions: Sequence[Tensor],
    targets: Sequence[Tensor | None],
    owners: tuple[int, ...],
    kl: Tensor | None,
    block: Tensor,
    terms: str,
    batch: int,
    image_elements: int,
    update: UpdateSettings | None = None,
    group: Any = None,
    weights: Sequence[Tensor | None] = (),
) -> Tensor:
    """Mean kl plus the penalty of the constraints, 0-d, differentiable by predictions, targets and kl.

    Args:
        predictions: what is compared, [B, ...] each; scalars [B] or 0-d.
        targets: with what.
        owners: on behalf of which constraint (:class:`geco_ext.contract.LossCall`).
        kl: [B] or 0-d.
        block: the state; with ``update`` it moves.
        terms: the constraint vector.
        batch: examples.
        image_elements: numbers of an example of x_hat.
        update: how the state moves; None: it is only read.
        group: processes to add up over, or None.
        weights: of each prediction (:class:`geco_ext.contract.LossCall`), or none at all.

    Raises:
        RuntimeError: forward-mode derivatives are asked for; nothing has moved then.
    """
    inputs = [*predictions, *targets, *weights]
    if not is_compiling():
        refuse_forward_mode(*inputs, kl)
    grad_enabled = torch.is_grad_enabled()
    constants = _Constants(
        terms,
        owners,
        tuple([grad_enabled and t is not None and t.requires_grad for t in (*predictions, kl)]),
        grad_enabled and any(t is not None and t.requires_grad for t in targets),
        batch,
        image_elements,
        update,
    )
    if group is None:
        return _Lagrangian.apply(constants, block, kl, *inputs)  # type: ignore[no-any-return, no-untyped-call]
    return _GlobalLagrangian.apply(group, constants, block, kl, *inputs)  # type: ignore[no-any-return, no-untyped-call]


def measured(
    predictions: Sequence[Tensor],
    targets: Sequence[Tensor | None],
    owners: tuple[int, ...],
    kl: Tensor | None,
    block: Tensor,
    terms: str,
    batch: int,
    image_elements: int,
    weights: Sequence[Tensor | None],
) -> tuple[Tensor, Tensor | None]:
    """The constraint vector, float64 [L], and with a kl the loss: as :func:`lagrangian`, moving and keeping nothing."""
    constants = _Constants(terms, owners, (False,) * (len(predictions) + 1), False, batch, image_elements, None)
    call = _call(constants, block, None, [*predictions, *targets, *weights])
    averages = _constraint_sums(call)[:-1] / batch
    return averages, None if kl is None else loss_and_gradients(call._replace(kl=kl))


class ImageCalls:
    """The calls of a criterion that looks at images alone, as one call into C++ each, where they are usual.

    Between the checks and a kernel, Python costs more than the kernel where images are small: what does not change
    from one call to the next (the constraint vector, ``update``, where ``block`` lies) is looked up once.
    """

    __slots__ = ("_step", "_without_gradient")

    def __init__(
        self,
        terms: str,
        update: UpdateSettings | None,
        block: Tensor,
        without_gradient: Callable[[Tensor], None] | None = None,
    ) -> None:
        self._without_gradient = without_gradient  # called with the x_hat of calls whose gradient nobody wants
        self._step = dispatch.best_for(block.device).image_step(terms, update, block)

    def loss(self, x_hat: Tensor, x: Tensor, kl: Tensor) -> Tensor | None:
        """None where something is not usual: nothing has moved then, and the call has to take :func:`lagrangian`."""
        step = self._step
        if step is None or _modes() > 0 or _transforms() or forward_ad._current_level >= 0 or dispatch.is_asked_for():
            return None
        taken = step.forward(x_hat, x, kl)
        if taken is None:
            return None
        if taken[1] is None and taken[2] is None:
            if self._without_gradient is not None:
                self._without_gradient(x_hat)
            return taken[0]
        return _taken_step(step, taken, kl, x_hat)  # type: ignore[no-any-return, no-untyped-call]


# Forward --------------------------------------------------------------------------------------------------------------


class _Lagrangian(torch.autograd.Function):
    """Loss as a function of kl and of its predictions and targets (``inputs``, in this order; then weights)."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        """Constants, state block, kl, inputs -> loss."""
        # One name for all arguments: torch.compile drops ctx where their number happens to equal that of the names.
        constants, block, kl, *inputs = arguments
        call = _call(constants, block, kl, inputs)
        # Before the state moves: both passes belong to the same multipliers.
        target_gradients = _target_gradients(call) if constants.targets_want_gradient else None
        loss = loss_and_gradients(call)
        _keep(ctx, call, target_gradients)
        ctx.weights = len(inputs) - 2 * len(call.owners)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Scale the buffers of the forward pass."""
        return None, None, *_scaled_buffers(ctx, grad_outputs[0]), *[None] * ctx.weights


class _GlobalLagrangian(torch.autograd.Function):
    """The loss of one process of several; constraints, state and gradients are those of the batch of all.

    The gradient buffers are written before the sums of the other processes are known, so backward also multiplies by
    processes * examples here / examples everywhere: averaged over processes, as DistributedDataParallel does, that is
    the gradient of the mean over all examples.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        """Group, constants, state block, kl, inputs: sum here, add up over the group, update (everywhere alike)."""
        group, constants, block, kl, *inputs = arguments
        call = _call(constants, block, kl, inputs)
        target_gradients = _target_gradients(call) if constants.targets_want_gradient else None
        sums = _constraint_sums(call)
        torch.distributed.all_reduce(sums, group=group)
        loss, ctx.factor = _update_from_sums(call, sums, torch.distributed.get_world_size(group))
        _keep(ctx, call, target_gradients)
        ctx.weights = len(inputs) - 2 * len(call.owners)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Scale the buffers of the forward pass by the incoming gradient and this process's share."""
        incoming = grad_outputs[0] * ctx.factor.to(grad_outputs[0].dtype)
        return None, None, None, *_scaled_buffers(ctx, incoming), *[None] * ctx.weights


class _TakenStep(torch.autograd.Function):
    """A loss that is computed already, with its gradients by kl and x_hat: this only tells autograd."""

    @staticmethod
    def forward(ctx: Any, step: ImageStep, taken: TakenStep, kl: Tensor, x_hat: Tensor) -> Tensor:
        """``taken``: what ``step`` has made of the tensors."""
        loss, *ctx.gradients, ctx.rounds = taken
        if ctx.rounds:
            ctx.dtypes = [kl.dtype, x_hat.dtype]
        else:
            ctx.scale = step.backward
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Scale the gradients; in the usual case, where they are wanted once and as they are, in one call."""
        (incoming,), gradients = grad_outputs, ctx.gradients
        usual = gradients is not None and not ctx.rounds and not torch.is_grad_enabled() and not _keeps_graph()
        if usual and _modes() == 0 and not is_compiling() and not dispatch.is_asked_for():
            kl_gradient, image_gradient = gradients
            if ctx.scale(kl_gradient, image_gradient, incoming):
                ctx.gradients = None
                return None, None, kl_gradient, image_gradient
        return None, None, *_scaled_buffers(ctx, incoming)


# `_TakenStep.apply`, without what that does in Python first: it asks whether a torch.func transform is active and looks
# for tensors that have outlived one. `ImageCalls` asks the first, and reads no tensor of the second kind.
_taken_step = super(torch.autograd.Function, _TakenStep).apply


def _call(constants: _Constants, block: Tensor, kl: Tensor | None, inputs: Sequence[Tensor | None]) -> LossCall:
    terms, owners, wants_gradient, _, batch, image_elements, update = constants
    # A type in quotes: TorchDynamo of PyTorch 2.6 does not trace list[Tensor].
    count = len(owners)
    predictions, targets = cast("list[Tensor]", list(inputs[:count])), list(inputs[count : 2 * count])
    weights = list(inputs[2 * count :]) or [None] * count
    gradients = _buffers([*predictions, kl], wants_gradient)
    return LossCall(predictions, targets, weights, kl, block, terms, owners, gradients, batch, image_elements, update)


def _buffers(inputs: Sequence[Tensor | None], wants_gradient: Sequence[bool]) -> list[Tensor | None]:
    return [
        new_gradient(tensor) if wants and tensor is not None else None
        for tensor, wants in zip(inputs, wants_gradient, strict=True)
    ]


def _target_gradients(call: LossCall) -> list[Tensor | None]:
    """Gradients by the targets: every constraint is symmetric in its pair, so a second pass with the roles swapped."""
    wanted = [t is not None and t.requires_grad for t in call.targets]
    pairs = [(p, t) if t is None else (t, p) for p, t in zip(call.predictions, call.targets, strict=True)]
    gradients = _buffers([pair[0] for pair in pairs], wanted)
    swapped = call._replace(
        predictions=[pair[0] for pair in pairs],
        targets=[pair[1] for pair in pairs],
        kl=None,
        gradients=[*gradients, None],
        update=None,
    )
    loss_and_gradients(swapped)
    return gradients


# Backward -------------------------------------------------------------------------------------------------------------


def _keep(ctx: Any, call: LossCall, target_gradients: list[Tensor | None] | None) -> None:
    """Keep what backward returns, in its order: kl, predictions, targets."""
    *of_predictions, of_kl = call.gradients
    gradients = [of_kl, *of_predictions, *(target_gradients or [None] * len(call.targets))]
    inputs = (call.kl, *call.predictions, *call.targets)
    ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in inputs]
    if is_compiling():
        ctx.present = [gradient is not None for gradient in gradients]
        ctx.save_for_backward(*[gradient for gradient in gradients if gradient is not None])
        return
    # Not as saved tensors: backward hands the buffers themselves on, and may then hold no reference of its own.
    ctx.gradients = gradients
    ctx.rounds = any(g is not None and g.dtype != dtype for g, dtype in zip(gradients, ctx.dtypes, strict=True))


def _scaled_buffers(ctx: Any, incoming: Tensor) -> Sequence[Tensor | None]:
    if is_compiling():
        saved = iter(ctx.saved_tensors)
        gradients = [next(saved) if present else None for present in ctx.present]
        return _multiplied(gradients, incoming, ctx.dtypes)
    if torch.is_grad_enabled():  # create_graph=True
        with torch.no_grad():
            gradients = list(_scale(ctx, incoming))
        return [g if g is None else refusing_second_derivative(g) for g in gradients]
    return _scale(ctx, incoming)


def _scale(ctx: Any, incoming: Tensor) -> Sequence[Tensor | None]:
    gradients: list[Tensor | None] | None = ctx.gradients
    if gradients is None:
        raise RuntimeError(
            "Trying to backward through the GECO loss a second time, but its gradients have been handed on. "
            "Specify retain_graph=True the first time."
        )
    present = [gradient for gradient in gradients if gradient is not None]
    dtypes = ctx.dtypes if ctx.rounds else [None] * len(gradients)
    if not dispatch.is_plain(incoming, *present):
        return _multiplied(gradients, incoming, dtypes)
    backend, incoming = dispatch.select_for_scaling(incoming.device), incoming.resolve_neg()
    if not _keeps_graph():
        ctx.gradients = None
        if not ctx.rounds:  # nobody reads the buffers again: they become the gradients
            backend.scale_gradients_in_place(present, incoming)
            return gradients
    outputs = [None if g is None else empty_like(g, dtype=dtype) for g, dtype in zip(gradients, dtypes, strict=True)]
    backend.scale_gradients(present, [output for output in outputs if output is not None], incoming)
    return outputs


def _multiplied(
    gradients: Sequence[Tensor | None], incoming: Tensor, dtypes: Sequence[torch.dtype | None]
) -> list[Tensor | None]:
    """The buffers times the incoming gradient, in operators that everything in PyTorch understands."""
    return [
        None if gradient is None else (gradient * incoming).to(dtype or gradient.dtype)
        for gradient, dtype in zip(gradients, dtypes, strict=True)
    ]


_keeps_graph = torch._C._autograd._get_current_graph_task_keep_graph


# The operators: schemas, fake kernels, what they mutate ---------------------------------------------------------------

_CALL = (
    "Tensor[] predictions, Tensor?[] targets, Tensor?[] weights, Tensor? kl, {block} block, str terms, int[] owners, "
    "Tensor(g!)[] gradients, bool[] wants_gradient, SymInt batch, SymInt image_elements"
)
_UPDATE = "float alpha, float lr, float proportional, str violation, float max_violation, int accumulation_steps"

_library = torch.library.Library("geco_ext", "FRAGMENT")
_library.define(f"training_loss({_CALL.format(block='Tensor(b!)')}, {_UPDATE}) -> Tensor")
_library.define(f"evaluation_loss({_CALL.format(block='Tensor')}) -> Tensor")
_library.define(f"constraint_sums({_CALL.format(block='Tensor')}) -> Tensor")
_library.define(
    f"update_from_sums(Tensor sums, SymInt world_size, {_CALL.format(block='Tensor(b!)')}, {_UPDATE})"
    " -> (Tensor, Tensor)"
)


def loss_and_gradients(call: LossCall) -> Tensor:
    """The loss; writes the gradients, and with ``call.update`` the state moves."""
    if _is_plain(call):
        return dispatch.select(call).lagrangian(call)
    if call.update is None:
        return torch.ops.geco_ext.evaluation_loss.default(*_declared(call))  # type: ignore[no-any-return]
    return torch.ops.geco_ext.training_loss.default(*_declared(call), *call.update)  # type: ignore[no-any-return]


def _constraint_sums(call: LossCall) -> Tensor:
    """Float64 [L + 1] of this process (:meth:`Backend.constraint_sums`); writes the gradients."""
    if _is_plain(call):
        return dispatch.select(call).constraint_sums(call)
    return torch.ops.geco_ext.constraint_sums.default(*_declared(call))  # type: ignore[no-any-return]


def _update_from_sums(call: LossCall, sums: Tensor, world_size: int) -> tuple[Tensor, Tensor]:
    """The rest of a step from the sums over all processes: loss and gradient factor."""
    if _is_plain(call):
        return dispatch.select(call).update_from_sums(call, sums, world_size)
    assert call.update is not None
    return torch.ops.geco_ext.update_from_sums.default(  # type: ignore[no-any-return]
        sums, world_size, *_declared(call), *call.update
    )


def _is_plain(call: LossCall) -> bool:
    return dispatch.is_plain(*call.predictions, *call.targets, *call.weights, call.kl, call.block, *call.gradients)


def _declared(call: LossCall) -> tuple[Any, ...]:
    """The call in the order and types of the schema, which has no lists of optional tensors that are written."""
    present = [gradient is not None for gradient in call.gradients]
    gradients = [gradient for gradient in call.gradients if gradient is not None]
    return (*call[:7], gradients, present, call.batch, call.image_elements)


def _as_call(*arguments: Any) -> LossCall:
    predictions, targets, weights, kl, block, terms, owners, *others = arguments
    gradients, present, batch, image_elements, *update = others
    given = iter(gradients)
    buffers = [next(given) if is_present else None for is_present in present]
    settings = UpdateSettings(*update) if update else None
    return LossCall(
        predictions, targets, weights, kl, block, terms, tuple(owners), buffers, batch, image_elements, settings
    )


def _loss_kernel(*arguments: Any) -> Tensor:
    call = _as_call(*arguments)
    return dispatch.select(call).lagrangian(call)


def _sums_kernel(*arguments: Any) -> Tensor:
    call = _as_call(*arguments)
    return dispatch.select(call).constraint_sums(call)


def _update_kernel(sums: Tensor, world_size: int, *arguments: Any) -> tuple[Tensor, Tensor]:
    call = _as_call(*arguments)
    return dispatch.select(call).update_from_sums(call, sums, world_size)


def _fake_loss(predictions: list[Tensor], *_: Any) -> Tensor:
    return predictions[0].new_empty((), dtype=loss_dtype(predictions))


def _fake_sums(
    predictions: list[Tensor],
    targets: list[Tensor | None],
    weights: list[Tensor | None],
    kl: Tensor | None,
    block: Tensor,
    terms: str,
    *_: Any,
) -> Tensor:
    return block.new_empty(count_rows(terms) + 1)


def _fake_update(sums: Tensor, world_size: int, predictions: list[Tensor], *_: Any) -> tuple[Tensor, Tensor]:
    return sums.new_empty((), dtype=loss_dtype(predictions)), sums.new_empty(())


for _name, _kernel, _fake in (
    ("training_loss", _loss_kernel, _fake_loss),
    ("evaluation_loss", _loss_kernel, _fake_loss),
    ("constraint_sums", _sums_kernel, _fake_sums),
    ("update_from_sums", _update_kernel, _fake_update),
):
    _library.impl(_name, _kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"geco_ext::{_name}", _fake, lib=_library)

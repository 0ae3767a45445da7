"""The operators, declared to PyTorch: schemas, fake kernels, what they mutate.

An eager call on plain tensors goes straight to the backend; everything that looks at or rewrites operator calls
(``torch.compile``, ``torch.export``, dispatch modes, tensor subclasses) sees the declared operators. Their kernels
call the same backends, so both ways compute the same bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from geco_ext import backends
from geco_ext.backends.allocation import loss_dtype
from geco_ext.terms import Request, UpdateSettings, parse_terms

_CALL = (
    "Tensor[] predictions, Tensor?[] targets, Tensor? kl, {block} block, str terms, int[] owners, "
    "Tensor(g!)[] gradients, bool[] wants_gradient, SymInt batch, SymInt image_elements"
)
_UPDATE = "float alpha, float lr, float proportional, str violation, float max_violation, int accumulation_steps"

_library = torch.library.Library("geco_ext", "DEF")
_library.define(f"training_loss({_CALL.format(block='Tensor(b!)')}, {_UPDATE}) -> Tensor")
_library.define(f"evaluation_loss({_CALL.format(block='Tensor')}) -> Tensor")
_library.define(f"constraint_sums({_CALL.format(block='Tensor')}) -> Tensor")
_library.define(
    f"update_from_sums(Tensor sums, SymInt world_size, {_CALL.format(block='Tensor(b!)')}, {_UPDATE})"
    " -> (Tensor, Tensor)"
)


def lagrangian(request: Request) -> Tensor:
    """The loss; writes the gradients, and with ``request.update`` the state block moves."""
    if _is_plain(request):
        return backends.select(request).lagrangian(request)
    if request.update is None:
        return torch.ops.geco_ext.evaluation_loss.default(*_declared(request))  # type: ignore[no-any-return]
    return torch.ops.geco_ext.training_loss.default(*_declared(request), *request.update)  # type: ignore[no-any-return]


def constraint_sums(request: Request) -> Tensor:
    """Float64 [L + 1] of this process (see :class:`geco_ext.backends.Backend`); writes the gradients."""
    if _is_plain(request):
        return backends.select(request).constraint_sums(request)
    return torch.ops.geco_ext.constraint_sums.default(*_declared(request))  # type: ignore[no-any-return]


def update_from_sums(request: Request, sums: Tensor, world_size: int) -> tuple[Tensor, Tensor]:
    """The rest of a step from the sums over all processes: loss and gradient factor."""
    if _is_plain(request):
        return backends.select(request).update_from_sums(request, sums, world_size)
    assert request.update is not None
    return torch.ops.geco_ext.update_from_sums.default(  # type: ignore[no-any-return]
        sums, world_size, *_declared(request), *request.update
    )


def _is_plain(request: Request) -> bool:
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return False
    return all(type(p) is Tensor or type(p) is torch.nn.Parameter for p in request.predictions)


def _declared(request: Request) -> tuple[Any, ...]:
    """The request in the order and types of the schema."""
    return (
        request.predictions,
        request.targets,
        request.kl,
        request.block,
        request.terms,
        request.owners,
        [gradient for gradient in request.gradients if gradient is not None],
        [gradient is not None for gradient in request.gradients],
        request.batch,
        request.image_elements,
    )


def _request(
    predictions: list[Tensor],
    targets: list[Tensor | None],
    kl: Tensor | None,
    block: Tensor,
    terms: str,
    owners: list[int],
    gradients: list[Tensor],
    wants_gradient: list[bool],
    batch: int,
    image_elements: int,
    *update: Any,
) -> Request:
    given = iter(gradients)
    buffers = [next(given) if wants else None for wants in wants_gradient]
    settings = UpdateSettings(*update) if update else None
    return Request(predictions, targets, kl, block, terms, tuple(owners), buffers, batch, image_elements, settings)


def _loss_kernel(*arguments: Any) -> Tensor:
    request = _request(*arguments)
    return backends.select(request).lagrangian(request)


def _sums_kernel(*arguments: Any) -> Tensor:
    request = _request(*arguments)
    return backends.select(request).constraint_sums(request)


def _update_kernel(sums: Tensor, world_size: int, *arguments: Any) -> tuple[Tensor, Tensor]:
    request = _request(*arguments)
    return backends.select(request).update_from_sums(request, sums, world_size)


def _fake_loss(predictions: list[Tensor], *_: Any) -> Tensor:
    return predictions[0].new_empty((), dtype=loss_dtype(predictions))


def _fake_sums(
    predictions: list[Tensor], targets: list[Tensor | None], kl: Tensor | None, block: Tensor, terms: str, *_: Any
) -> Tensor:
    return block.new_empty(sum(term.rows for term in parse_terms(terms)) + 1)


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

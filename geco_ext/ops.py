"""The operators, declared to PyTorch: schemas, fake kernels, what they mutate.

An eager call on plain tensors goes straight to the backend; everything that looks at or rewrites operator calls
(``torch.compile``, ``torch.export``, dispatch modes, tensor subclasses) sees the declared operators. Their kernels
call the same backends, so both ways compute the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geco_ext import backends
from geco_ext.backends.allocation import loss_dtype, new_gradient
from geco_ext.terms import Request, UpdateSettings, parse_terms

_CALL = (
    "Tensor[] predictions, Tensor?[] targets, Tensor? kl, {block} block, str terms, int[] owners, "
    "bool[] wants_gradient, SymInt batch, SymInt image_elements"
)
_UPDATE = "float alpha, float lr, float proportional, str violation, float max_violation, int accumulation_steps"

_library = torch.library.Library("geco_ext", "DEF")
_library.define(f"training_loss({_CALL.format(block='Tensor(a!)')}, {_UPDATE}) -> (Tensor, Tensor[])")
_library.define(f"evaluation_loss({_CALL.format(block='Tensor')}) -> (Tensor, Tensor[])")
_library.define(f"constraint_sums({_CALL.format(block='Tensor')}) -> (Tensor, Tensor[])")
_library.define(
    f"update_from_sums(Tensor sums, SymInt world_size, {_CALL.format(block='Tensor(a!)')}, {_UPDATE})"
    " -> (Tensor, Tensor)"
)

_Arguments = tuple[list[Tensor], list[Tensor | None], Tensor | None, Tensor, str, tuple[int, ...], list[bool], int, int]


def lagrangian(request: Request) -> tuple[Tensor, list[Tensor]]:
    """Loss and wanted gradients; with ``request.update`` the state block moves."""
    if _is_plain(request):
        return backends.select(request).lagrangian(request)
    if request.update is None:
        return torch.ops.geco_ext.evaluation_loss.default(*request[:-1])  # type: ignore[no-any-return]
    return torch.ops.geco_ext.training_loss.default(*request[:-1], *request.update)  # type: ignore[no-any-return]


def constraint_sums(request: Request) -> tuple[Tensor, list[Tensor]]:
    """Float64 [L + 1] of this process (see :class:`geco_ext.backends.Backend`) and the wanted gradients."""
    if _is_plain(request):
        return backends.select(request).constraint_sums(request)
    return torch.ops.geco_ext.constraint_sums.default(*request[:-1])  # type: ignore[no-any-return]


def update_from_sums(request: Request, sums: Tensor, world_size: int) -> tuple[Tensor, Tensor]:
    """The rest of a step from the sums over all processes: loss and gradient factor."""
    if _is_plain(request):
        return backends.select(request).update_from_sums(request, sums, world_size)
    assert request.update is not None
    return torch.ops.geco_ext.update_from_sums.default(  # type: ignore[no-any-return]
        sums, world_size, *request[:-1], *request.update
    )


def _is_plain(request: Request) -> bool:
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return False
    return all(type(p) is Tensor or type(p) is torch.nn.Parameter for p in request.predictions)


def _request(arguments: _Arguments, update: UpdateSettings | None) -> Request:
    predictions, targets, kl, block, terms, owners, wants_gradient, batch, image_elements = arguments
    return Request(predictions, targets, kl, block, terms, tuple(owners), wants_gradient, batch, image_elements, update)


def _training_loss(*arguments: object) -> tuple[Tensor, list[Tensor]]:
    request = _request(arguments[:-6], UpdateSettings(*arguments[-6:]))  # type: ignore[arg-type]
    return backends.select(request).lagrangian(request)


def _evaluation_loss(*arguments: object) -> tuple[Tensor, list[Tensor]]:
    request = _request(arguments, None)  # type: ignore[arg-type]
    return backends.select(request).lagrangian(request)


def _constraint_sums(*arguments: object) -> tuple[Tensor, list[Tensor]]:
    request = _request(arguments, None)  # type: ignore[arg-type]
    return backends.select(request).constraint_sums(request)


def _update_from_sums(sums: Tensor, world_size: int, *arguments: object) -> tuple[Tensor, Tensor]:
    request = _request(arguments[:-6], UpdateSettings(*arguments[-6:]))  # type: ignore[arg-type]
    return backends.select(request).update_from_sums(request, sums, world_size)


_library.impl("training_loss", _training_loss, "CompositeExplicitAutograd")
_library.impl("evaluation_loss", _evaluation_loss, "CompositeExplicitAutograd")
_library.impl("constraint_sums", _constraint_sums, "CompositeExplicitAutograd")
_library.impl("update_from_sums", _update_from_sums, "CompositeExplicitAutograd")


def _fake_gradients(predictions: list[Tensor], kl: Tensor | None, wants_gradient: list[bool]) -> list[Tensor]:
    tensors = [*predictions, *([] if kl is None else [kl])]
    return [new_gradient(tensor) for tensor, wanted in zip(tensors, wants_gradient, strict=False) if wanted]


@torch.library.register_fake("geco_ext::training_loss", lib=_library)
@torch.library.register_fake("geco_ext::evaluation_loss", lib=_library)
def _fake_loss(
    predictions: list[Tensor],
    targets: list[Tensor | None],
    kl: Tensor | None,
    block: Tensor,
    terms: str,
    owners: list[int],
    wants_gradient: list[bool],
    *_: object,
) -> tuple[Tensor, list[Tensor]]:
    loss = block.new_empty((), dtype=loss_dtype(predictions))
    return loss, _fake_gradients(predictions, kl, wants_gradient)


@torch.library.register_fake("geco_ext::constraint_sums", lib=_library)
def _fake_sums(
    predictions: list[Tensor],
    targets: list[Tensor | None],
    kl: Tensor | None,
    block: Tensor,
    terms: str,
    owners: list[int],
    wants_gradient: list[bool],
    *_: object,
) -> tuple[Tensor, list[Tensor]]:
    sums = block.new_empty(sum(term.rows for term in parse_terms(terms)) + 1)
    return sums, _fake_gradients(predictions, kl, wants_gradient)


@torch.library.register_fake("geco_ext::update_from_sums", lib=_library)
def _fake_update(sums: Tensor, world_size: int, predictions: list[Tensor], *_: object) -> tuple[Tensor, Tensor]:
    return sums.new_empty((), dtype=loss_dtype(predictions)), sums.new_empty(())

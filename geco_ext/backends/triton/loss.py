"""Calls of the loss as launches of one kernel (``kernels/lagrangian.py``): how its programs share the tensors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geco_ext.backends.allocation import new_empty, new_loss
from geco_ext.backends.triton.device import FUSED, is_interpreted, multiprocessors, on_device, power_of_two
from geco_ext.backends.triton.kernels import window_plan
from geco_ext.backends.workspace import new_workspace, workspace_of_stream
from geco_ext.contract import KINDS, LossCall, Term, count_rows, inputs_of_terms, parse_terms
from geco_ext.state import COUNTERS

_RULES = {"kappa^2": 0, "1-kappa": 1, "own": 2, "kappa": 3}


def lagrangian(call: LossCall) -> Tensor:
    """The loss; writes the gradients, and with ``call.update`` the state moves."""
    loss = new_loss(call)
    _launch(call, loss, None)
    return loss


def constraint_sums(call: LossCall) -> Tensor:
    """Sums over the batch of the constraint vector, then the number of examples; writes the gradients."""
    sums = new_empty(call.block, (count_rows(call.terms) + 1,))
    _launch(call._replace(update=None), None, sums)
    return sums


def scale_gradients(gradients: Sequence[Tensor], outputs: Sequence[Tensor], factor: Tensor) -> None:
    """``outputs[i] = gradients[i] * factor``, rounded once."""
    launch, arguments = scaling_of(gradients, outputs, factor)
    if launch.programs > 0:
        with on_device(factor.device):
            launch(arguments)


# What is launched -----------------------------------------------------------------------------------------------------


class Launch:
    """A kernel on so many programs, for arguments that are alike in all that a compilation depends on.

    Triton looks at every argument of a launch to find the kernel that was compiled for it. From the second launch on
    that is known here.
    """

    __slots__ = ("_compiled", "_kernel", "_warps", "programs")

    def __init__(self, kernel: Any, programs: int, warps: int) -> None:
        self._kernel, self.programs, self._warps = kernel, programs, warps
        self._compiled: Any = None

    def __call__(self, arguments: tuple[Any, ...]) -> None:
        """Launch it on the current stream of the current device; the arguments in the order of the kernel's."""
        if self._compiled is None:  # in the interpreter, always
            self._compiled = self._kernel[(self.programs,)](*arguments, num_warps=self._warps, **FUSED)
        else:
            self._compiled[(self.programs, 1, 1)](*arguments)


class Arguments(NamedTuple):
    """Of the kernel of a call (``kernels/lagrangian.py``)."""

    predictions: tuple[Tensor, ...]
    targets: tuple[Tensor | None, ...]
    gradients: tuple[Tensor | None, ...]
    weights: tuple[Tensor | None, ...]
    layouts: Any
    first_programs: tuple[int, ...]
    programs: tuple[int, ...]
    compared: tuple[int, ...]
    per_example: tuple[int, ...]
    block: Tensor
    counters: Tensor
    finished: Tensor | None
    partials: Tensor | None
    sums: Tensor | None
    loss: Tensor | None
    batch: int
    items: Any
    terms: Any
    constraints: int
    rows: int
    update: Any
    tile: int


class ScalingArguments(NamedTuple):
    """Of the kernel that scales gradients (``kernels/gradient_scale.py``)."""

    gradients: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    elements: tuple[int, ...]
    first_programs: tuple[int, ...]
    factor: Tensor | None
    in_place: Any
    tile: int


def scaling_of(
    gradients: Sequence[Tensor], outputs: Sequence[Tensor], factor: Tensor
) -> tuple[Launch, ScalingArguments]:
    """What multiplies gradients; of no programs where they have no elements."""
    from geco_ext.backends.triton.kernels.gradient_scale import gradient_scale_kernel

    most = 8 * multiprocessors(factor.device)
    elements = tuple(gradient.numel() for gradient in gradients)
    programs = [min(-(-count // _TILE), most) for count in elements]
    in_place = tuple(g.data_ptr() == o.data_ptr() for g, o in zip(gradients, outputs, strict=True))
    arguments = ScalingArguments(
        tuple(gradients), tuple(outputs), elements, _starts(programs), factor, _constants(in_place), _TILE
    )
    return Launch(gradient_scale_kernel, sum(programs), _WARPS), arguments


_TILE = 4096  # numbers of a program in one round: 16 bytes eight times over, for each of its threads
_SMALL_TILE = 1024
_WARPS = 8
_PROGRAMS_PER_MULTIPROCESSOR = 32
_MOST_ROUNDS = 16  # of a program, with up to four numbers each for a sum in float32: then float64 takes over
_WINDOWED_PROGRAMS_PER_MULTIPROCESSOR = 16
_CELLS = 4096  # of a tile of windowed constraints, as long as patches are small enough
_CELLS_OF_DOUBLE = 2048


class _Item(NamedTuple):
    """An input, or kl: what its programs do, and how its elements lie."""

    kind: str
    readers: tuple[int, ...]  # terms
    setting: Any
    layout: Any  # see kernels.measures
    channels: int
    elements: int  # of a channel, or examples
    per_example: int  # numbers of an example; of a mean, all of them


class _Plan(NamedTuple):
    items: tuple[_Item, ...]
    compared: tuple[int, ...]
    items_of_kernel: Any  # constants, as terms are
    terms: Any
    constraints: int
    first_programs: tuple[int, ...]
    programs: tuple[int, ...]
    partials_of_slots: int
    tile: int
    warps: int


def _launch(call: LossCall, loss: Tensor | None, sums: Tensor | None) -> None:
    with on_device(call.block.device):
        launch, arguments = launch_of(call, loss, sums)
        launch(arguments)


def launch_of(call: LossCall, loss: Tensor | None, sums: Tensor | None) -> tuple[Launch, Arguments]:
    """What a call launches on its device, the current one, and the arguments of the kernel."""
    from geco_ext.backends.triton.kernels.lagrangian import lagrangian_kernel

    # A negated view (of a complex tensor) has its sign in a flag that an address does not show.
    given = [*call.predictions] if call.kl is None else [*call.predictions, call.kl]
    tensors = [tensor.resolve_neg() for tensor in given]
    targets: list[Tensor | None] = [target if target is None else target.resolve_neg() for target in call.targets]
    weights: list[Tensor | None] = [w if w is None else w.resolve_neg() for w in call.weights]
    if call.kl is not None:
        targets.append(None)
        weights.append(None)
    geometry = tuple(map(_geometry, tensors, targets, call.gradients, weights))
    block = call.block
    plan = _plan(
        call.terms,
        call.owners,
        geometry,
        call.image_elements,
        call.kl is not None,
        multiprocessors(block.device),
    )
    launched = plan.first_programs[-1]
    arguments = Arguments(
        tuple(tensors),
        tuple(targets),
        tuple(call.gradients[: len(tensors)]),
        tuple(weights),
        tuple(item.layout for item in plan.items),
        plan.first_programs,
        plan.programs,
        plan.compared,
        tuple(item.per_example for item in plan.items),
        block,
        block[-len(COUNTERS) :].view(torch.int64),
        counter(block.device),
        new_empty(block, (launched + plan.partials_of_slots,)),
        sums,
        loss,
        call.batch,
        plan.items_of_kernel,
        plan.terms,
        plan.constraints,
        power_of_two(plan.constraints),
        _constants(call.update),
        plan.tile,
    )
    return Launch(lagrangian_kernel, launched, plan.warps), arguments


def counter(device: torch.device) -> Tensor:
    """Of the programs that have finished, zero, for a launch on the current stream of the current device."""
    stream = 0  # of the interpreter, which runs one launch at a time
    if device.type == "cuda":
        if torch.cuda.is_current_stream_capturing():
            return new_workspace(device, words=1, counters=1).view(torch.int64)
        stream = torch._C._cuda_getCurrentRawStream(device.index)
    return workspace_of_stream(device, stream, words=1, counters=1).view(torch.int64)


class _Geometry(NamedTuple):
    """Of a prediction, its target, its gradient and its weights; shapes are alike."""

    shape: tuple[int, ...]
    prediction: tuple[int, ...]  # strides
    target: tuple[int, ...]
    gradient: tuple[int, ...]
    weights: tuple[int, ...]  # zeros where they are shared, and where there are none
    is_weighted: bool
    is_double: bool


def _geometry(prediction: Tensor, target: Tensor | None, gradient: Tensor | None, weights: Tensor | None) -> _Geometry:
    return _Geometry(
        tuple(prediction.shape),
        prediction.stride(),
        prediction.stride() if target is None else target.stride(),
        prediction.stride() if gradient is None else gradient.stride(),
        (0,) * prediction.dim() if weights is None else weights.expand_as(prediction).stride(),
        weights is not None,
        prediction.dtype == torch.float64 or (target is not None and target.dtype == torch.float64),
    )


@lru_cache(maxsize=1024)
def _plan(
    terms_text: str,
    owners: tuple[int, ...],
    geometry: tuple[_Geometry, ...],
    image_elements: int,
    has_kl: bool,
    multiprocessors: int,
) -> _Plan:
    import triton.language as tl

    terms = parse_terms(terms_text)
    inputs = inputs_of_terms(terms, owners)
    items = []
    for index in range(len(owners)):
        readers = tuple(t for t, of_term in enumerate(inputs) if index in of_term)
        compute = tl.float64 if geometry[index].is_double else tl.float32
        if any(terms[t].is_windowed for t in readers):
            items.append(_windowed_item(geometry[index], terms, readers, compute, multiprocessors))
        elif any(terms[t].is_elementwise for t in readers):
            per_channel = any(terms[t].rows > 1 for t in readers)
            measures = window_plan.measures_of_terms(terms, readers)
            setting = (compute, measures, power_of_two(len(measures)))
            items.append(_elementwise_item(geometry[index], per_channel, readers, setting))
        else:
            items.append(_mean_item(geometry[index], readers))
    if has_kl:
        items.append(_mean_item(geometry[-1], ()))

    first_row = 0
    described = []
    compared = []
    for t, (term, of_term) in enumerate(zip(terms, inputs, strict=True)):
        slots = window_plan.slots_of_terms(terms, items[of_term[0]].readers)
        windows = (term.patch_size, window_plan.clamped_stride(term), term.per_channel) if term.is_windowed else None
        rule = _RULES[term.scale_rule]
        of_sums = (*slots.get(t, (0, 1)), term.is_elementwise, windows)
        is_mean = term.mean and not geometry[of_term[0]].is_weighted
        described.append((term.kind, first_row, term.rows, rule, is_mean, tuple(of_term), of_sums))
        first_row += term.rows
        counted = KINDS[term.kind].elements
        elements = image_elements
        if term.is_elementwise:
            elements = (2 if counted == "2 inputs" else 1) * sum(items[i].per_example for i in of_term)
        elif counted == "2 per position":
            height, width = geometry[of_term[0]].shape[-2:]
            elements = 2 * term.positions(height) * term.positions(width)
        compared.append(elements)

    measured = sum(item.channels * item.elements for item in items if item.kind == "elementwise")
    tile = _TILE if measured >= 2 * multiprocessors * _TILE else _SMALL_TILE
    programs = tuple(_programs(item, tile, measured, multiprocessors) for item in items)
    starts = _starts([item.channels * count for item, count in zip(items, programs, strict=True)])
    windowed = [(item, count) for item, count in zip(items, programs, strict=True) if item.kind == "windowed"]
    # One item at most leaves several sums: that of the images, which constraints share.
    partials_of_slots = sum(item.setting.slots * count for item, count in windowed)
    for item, count in zip(items, programs, strict=True):
        if item.kind == "elementwise" and len(item.setting[1]) > 1:
            partials_of_slots += len(item.setting[1]) * item.channels * count
    warps = max((_warps_of_windows(item.setting.tile) for item, _ in windowed), default=_WARPS)
    return _Plan(
        tuple(items),
        tuple(compared),
        _constants(tuple((item.kind, item.readers, item.setting) for item in items)),
        _constants(tuple(described)),
        first_row,
        starts,
        programs,
        partials_of_slots,
        tile,
        warps,
    )


@lru_cache(maxsize=1024)
def _constants(value: tuple[Any, ...] | None) -> Any:
    """What a kernel is compiled for, in the form that it takes."""
    from geco_ext.backends.triton.kernels.constants import Constants

    return value if value is None or is_interpreted() else Constants(value)


def _programs(item: _Item, tile: int, measured: int, multiprocessors: int) -> int:
    """Programs of a channel of an item; elementwise ones share the device by size."""
    if item.kind == "scalar":
        return 1
    if item.kind == "windowed":
        return min(item.elements, _WINDOWED_PROGRAMS_PER_MULTIPROCESSOR * multiprocessors)
    most = _PROGRAMS_PER_MULTIPROCESSOR * multiprocessors
    rounds = min(-(-measured // (tile * most)), _MOST_ROUNDS)
    return max(1, -(-item.elements // (tile * rounds)))


def _elementwise_item(
    geometry: _Geometry, per_channel: bool, readers: tuple[int, ...], setting: tuple[Any, ...]
) -> _Item:
    """The elements of a channel as one dimension after the other, in the order of the gradient's memory."""
    shape = geometry.shape
    strides = [geometry.prediction, geometry.target, geometry.gradient]
    if geometry.is_weighted:
        strides.append(geometry.weights)
    channels, of_channels = 1, (0,) * len(strides)
    dimensions = []
    for d, size in enumerate(shape):
        of_dimension = tuple(of_tensor[d] for of_tensor in strides)
        if per_channel and d == 1:
            channels, of_channels = size, of_dimension
        elif size != 1:
            dimensions.append((size, *of_dimension))
    merged: list[tuple[int, ...]] = []
    for size, *steps in sorted(dimensions, key=lambda dimension: -dimension[3]):
        if merged and merged[-1][1:] == tuple(size * step for step in steps):
            merged[-1] = (merged[-1][0] * size, *steps)
        else:
            merged.append((size, *steps))
    innermost_first = merged[::-1] or [(1,) * (1 + len(strides))]
    elements = 1
    for size, *_ in innermost_first:
        elements *= size
    layout = (elements, of_channels, *innermost_first)
    return _Item("elementwise", readers, setting, layout, channels, elements, elements * channels // shape[0])


def _windowed_item(
    geometry: _Geometry, terms: tuple[Term, ...], readers: tuple[int, ...], compute: Any, multiprocessors: int
) -> _Item:
    """Its elements are tiles, of all channels."""
    batch, channels, height, width = geometry.shape
    largest = max(terms[t].patch_size for t in readers)
    cells = _CELLS_OF_DOUBLE if geometry.is_double else _CELLS
    tile = window_plan.best_tile(batch, height, width, largest, cells, multiprocessors)
    slots = power_of_two(window_plan.slots_needed(terms, readers))
    setting = window_plan.constants(terms, readers, channels, tile, compute, geometry.is_double, slots)
    layout = tuple(zip(*geometry[:4], strict=True))
    return _Item("windowed", readers, setting, layout, 1, batch * tile.number(height, width), channels * height * width)


def _warps_of_windows(tile: window_plan.Tile) -> int:
    """A thread holds few numbers of a tile: there are many tensors of it."""
    return min(max(tile.shape[0] * tile.shape[1] // 256, 4), 16)


def _mean_item(geometry: _Geometry, readers: tuple[int, ...]) -> _Item:
    count = geometry.shape[0] if geometry.shape else 1
    layout = (count, *(strides[0] if strides else 0 for strides in geometry[1:4]))
    return _Item("scalar", readers, None, layout, 1, count, count)


def _starts(counts: Sequence[int]) -> tuple[int, ...]:
    """Where each of several runs begins, and where the last one ends."""
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    return tuple(starts)

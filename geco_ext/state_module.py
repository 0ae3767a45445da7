"""A module whose buffers are the rows and counters of one state block."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from geco_ext import state as state_block
from geco_ext.backends.native import extension
from geco_ext.warn import warn_user

STATE_NAMES = (*state_block.PERSISTENT_ROWS, *state_block.COUNTERS)
_rows_of = operator.itemgetter(*STATE_NAMES)
_CONSTRAINTS = "constraints"  # their names, in the metadata of a state_dict


class StateModule(nn.Module):
    """Keeps the block and its views together through ``to()``, ``state_dict``, copies and pickles.

    The block stays float64 whatever dtype the model is moved to: steps of 1e-7 onto a log lambda of 10 would vanish
    in float32.
    """

    log_multiplier: Tensor
    moving_average: Tensor
    violation: Tensor
    kappa: Tensor
    accumulated: Tensor
    follows_error: Tensor
    bound_opening: Tensor
    kappa_target: Tensor
    schedule_start: Tensor
    schedule_steps: Tensor
    schedule_step: Tensor
    schedule_is_linear: Tensor
    accumulated_examples: Tensor
    micro_batches: Tensor
    steps: Tensor
    skipped: Tensor

    names: tuple[str, ...]  # one for each constraint of the block
    _block: Tensor
    _views: tuple[Tensor, ...]
    _addresses: tuple[int, ...] | None
    _known: dict[Any, Any]  # what subclasses have looked up: empty with a new block, or an attribute that is set

    def _attach(self) -> None:
        """Make the buffers views of the current block."""
        with torch.inference_mode(False):  # where training could not write what is made inside
            if self._block.is_inference():
                self._block = self._block.clone()
            state = state_block.views(self._block)
        self._views = tuple(getattr(state, name) for name in STATE_NAMES)
        self._addresses = _addresses(self._views)
        self._buffers.update(zip(STATE_NAMES, self._views, strict=True))
        self._bind(self._block)

    def _new_block(self) -> Tensor:
        """The block before the first step."""
        raise NotImplementedError

    def _bind(self, block: Tensor) -> None:
        """Called with the block that the next call reads, where that is another one than before."""

    def _about_to_load(self, rows: Mapping[str, Tensor]) -> None:
        """Called with what a ``state_dict`` has for the block, if it fits, before it is copied."""

    def _has_loaded(self) -> None:
        """Called when the block has been copied from a ``state_dict``."""

    def _buffers_are_views(self) -> bool:
        """Whether the block says what the buffers say. It does not after ``functional_call``, ``buffer.data = ...``."""
        if self._addresses is None:
            return all(map(operator.is_, _rows_of(self._buffers), self._views))
        return self._lie_at(self._addresses) or (self._block_has_moved() and self._lie_at(self._addresses))

    def _lie_at(self, addresses: tuple[int, ...]) -> bool:
        compiled, _ = extension()
        if compiled is not None:  # the same in a tenth of the time
            return compiled.lie_at(self._buffers, STATE_NAMES, addresses)  # type: ignore[no-any-return]
        try:
            return tuple(map(Tensor.data_ptr, _rows_of(self._buffers))) == addresses
        except (RuntimeError, TypeError):  # a tensor without storage, None
            return False

    def _block_has_moved(self) -> bool:
        """Whether the memory is another than before: sharing it with another process moves it under its tensors."""
        addresses = _addresses(_rows_of(state_block.views(self._block)._asdict()))
        if addresses is None or addresses == self._addresses:
            return False
        self._addresses, self._known = addresses, {}
        return True

    @contextmanager
    def _block_of_buffers(self) -> Iterator[Tensor]:
        """A block for one call, where others have taken the place of the views: what moves is written to those."""
        block = self._block.detach().clone()
        state, own = state_block.views(block), state_block.views(self._block)
        with torch.no_grad():
            for name in STATE_NAMES:
                getattr(state, name).copy_(self._row(name))
        self._bind(block)
        try:
            yield block
            with torch.no_grad():
                for name in state_block.State._fields:
                    (self._row(name) if name in STATE_NAMES else getattr(own, name)).copy_(getattr(state, name))
        finally:
            self._bind(self._block)

    def _row(self, name: str) -> Tensor:
        row = self._buffers[name]
        if row is None:
            raise RuntimeError(f"{name}: got None, expected a tensor")
        return row

    @contextmanager
    def _without_rows(self) -> Iterator[None]:
        """Leave to ``nn.Module`` what it knows: parameters and buffers of subclasses, not the views of the block."""
        rows = {name: self._buffers.pop(name) for name in STATE_NAMES}
        try:
            yield
        finally:
            self._buffers.update(rows)

    def __setattr__(self, name: str, value: Any) -> None:
        """Assigning to a row writes it: the block is what the kernels read."""
        if name in STATE_NAMES:
            with torch.no_grad():
                row = self._row(name)
                row.copy_(torch.as_tensor(value, dtype=row.dtype))  # a Python number would become float32
        else:
            super().__setattr__(name, value)
            self.__dict__["_known"] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the views, which share the block's memory under two types, and what was looked up."""
        left_out = ("_views", "_addresses", "_known")
        state = {name: value for name, value in self.__dict__.items() if name not in left_out}
        state["_buffers"] = {name: value for name, value in self._buffers.items() if name not in STATE_NAMES}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore, then make the views anew."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._block = state_block.upgraded(self._block, len(self.names))
        self._attach()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StateModule:
        """Follow the model to another device, in float64."""
        device = fn(torch.empty(0, dtype=torch.float32, device=self._block.device)).device
        if device.type == "mps":
            raise ValueError(f"device: got {device}, which has no float64; GECOLoss keeps its state in float64")
        with self._without_rows():
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._block.is_meta and device.type != "meta":  # to_empty(): there is nothing to move yet
            self._block = self._new_block().to(device)
        else:
            moved = fn(self._block)
            self._block = moved if moved.dtype == torch.float64 else self._block.to(device)
        self._attach()
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        with self._without_rows():
            super()._save_to_state_dict(destination, prefix, keep_vars)
        # Beside the entries, which stay tensors of the same names as ever: what drops it drops the check alone.
        if (metadata := getattr(destination, "_metadata", None)) is not None:
            metadata.setdefault(prefix[:-1], {})[_CONSTRAINTS] = list(self.names)
        for name in STATE_NAMES:
            row = getattr(self, name).detach()
            # Counters lie behind the rows in one memory, which torch.save does not take under two types. An alias with
            # a storage of its own (DLPack) would outlive that memory where share_memory() moves it.
            destination[prefix + name] = row.clone() if row.dtype == torch.int64 else row

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Copy into the block, all rows or none."""
        keys = {prefix + name: name for name in STATE_NAMES}
        found = {keys[key]: value for key, value in state_dict.items() if key in keys}
        others = {key: value for key, value in state_dict.items() if key not in keys}
        if "kappa" in found and not found.keys() & state_block.LATER_ROWS:  # of an earlier version
            found |= state_block.later_rows(found["kappa"])
        missing = [key for key, name in keys.items() if name not in found]
        wrong = [
            f"size mismatch for {prefix}{name}: copying a param with shape {value.shape} from checkpoint, "
            f"the shape in current model is {getattr(self, name).shape}."
            for name, value in found.items()
            if value.shape != getattr(self, name).shape
        ]
        names = local_metadata.get(_CONSTRAINTS, list(self.names))
        if found and sorted(names) == sorted(self.names) and names != list(self.names):
            wrong.append(
                f"{prefix}constraints: got a state of {', '.join(names)}, expected {', '.join(self.names)}, in this "
                "order: it would belong to other constraints."
            )
        unexpected_before = len(unexpected_keys)
        with self._without_rows():
            super()._load_from_state_dict(
                others, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
            )
        missing_keys.extend(missing)
        error_msgs.extend(wrong)
        if wrong or (strict and (missing or len(unexpected_keys) > unexpected_before)):
            return
        if self._block.is_meta and local_metadata.get("assign_to_params_buffers", False):
            self._block = self._new_block().to(next(iter(found.values())).device)
            self._attach()
        if found and names != list(self.names):
            warn_user(
                f"load_state_dict: the constraints are {', '.join(self.names)} here and {', '.join(names)} in the "
                "state; each takes what the state has in its place"
            )
        self._about_to_load(found)
        with torch.no_grad():
            for name, value in found.items():
                getattr(self, name).copy_(value)
        if found:
            state_block.forget_unsaved(self._block)
            self._has_loaded()


def _addresses(views: tuple[Tensor, ...]) -> tuple[int, ...] | None:
    """Where the views lie, or None where there is no memory: on the meta device, under FakeTensorMode."""
    if any(type(view) is not Tensor or view.is_meta for view in views):
        return None
    return tuple(view.data_ptr() for view in views)

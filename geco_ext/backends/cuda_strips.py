"""Which patches the compiled CUDA kernels take: what of csrc/cuda/window_plan.cpp decides it, said before a call."""

from __future__ import annotations

import torch

from geco_ext.contract import IMAGE, LossCall, count_rows, parse_terms

_LANES = 32
# That a row of a warp's rings holds: five moments and three coefficients of each column, five numbers of each lane.
_NUMBERS_OF_COLUMN, _NUMBERS_OF_LANE = 8, 5
_MAX_CHANNELS = 1024  # one by one


def refuses_patches(call: LossCall, shared_bytes: int) -> str | None:
    """Why a block with so much shared memory cannot take the windowed terms, or None."""
    terms = parse_terms(call.terms)
    windows = {(t.patch_size, t.stride, t.per_channel) for t in terms if t.is_windowed}
    if not windows:
        return None
    image = call.owners.index(IMAGE)
    x_hat, x = call.predictions[image], call.targets[image]
    channels, width = x_hat.shape[1], x_hat.shape[3]
    if channels > _MAX_CHANNELS and any(per_channel for _, _, per_channel in windows):
        return f"it takes the channels of at most {_MAX_CHANNELS} one by one, got {channels}"
    dtypes = {t.dtype for t in (x_hat, x) if t is not None}
    is_double = torch.float64 in dtypes
    columns_of_lanes = (1, 2) if is_double else (1, 4)
    smallest, largest = min(size for size, _, _ in windows), max(size for size, _, _ in windows)
    # Rules, coefficients and sums, at most; then the rings.
    fixed = 9216 + 8 * (13 * channels + 3 * count_rows(call.terms))
    for columns in columns_of_lanes:
        held = _LANES * columns
        wide_enough = width <= held or held > 2 * (largest - 1)
        lanes = min(-(-width // columns), _LANES)
        row = (-(-lanes // 4) * 4) * (_NUMBERS_OF_COLUMN * columns + _NUMBERS_OF_LANE) * (8 if is_double else 4)
        fits = fixed + row * sum(size - 1 for size, _, _ in windows) <= shared_bytes
        if columns <= smallest and wide_enough and fits:
            return None
    sizes = ", ".join(f"{size}x{size}" for size in sorted({size for size, _, _ in windows}))
    return f"patches of {sizes} pixels need more shared memory than the {shared_bytes} bytes of a block"

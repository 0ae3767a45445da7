# ruff: noqa: N803 (constants of a compilation are in capitals, as everywhere in Triton)
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""All gradient buffers times one number on the device, in one launch."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gradient_scale_kernel(
    gradients, outputs, elements, first_programs, factor, IN_PLACE: tl.constexpr, BLOCK: tl.constexpr
):
    """Buffers and outputs are dense and alike. A factor of one leaves a buffer that is scaled in place untouched."""
    program = tl.program_id(0)
    value = tl.load(factor)
    for i in tl.static_range(len(IN_PLACE)):
        if (program >= first_programs[i]) & (program < first_programs[i + 1]):
            programs = first_programs[i + 1] - first_programs[i]
            if (value != 1.0) | (not IN_PLACE[i]):
                for tile in range(program - first_programs[i], tl.cdiv(elements[i], BLOCK), programs):
                    at = tl.cast(tile, tl.int64) * BLOCK + tl.arange(0, BLOCK)
                    inside = at < elements[i]
                    gradient = tl.load(gradients[i] + at, mask=inside, other=0.0)
                    tl.store(outputs[i] + at, gradient * value.to(gradient.dtype), mask=inside)

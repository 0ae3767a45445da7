"""Scratch memory of kernels: counters that are zero between launches, and behind them numbers without a meaning.

The last block of a launch to finish finds that out by counting, and then reads what all blocks have left. Launches of
one stream follow one another, so they share a workspace, made once, and every launch leaves the counters at zero.
Launches that may overlap share none: they would count together and add up wrong sums.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

_of_streams: dict[tuple[int, int, int], Tensor] = {}


def workspace_of_stream(device: torch.device, stream: int, words: int, counters: int) -> Tensor:
    """The one of a stream (a raw handle), which has to be the current one: [words] float64, the first are counters."""
    key = (device.index, stream, words)
    held = _of_streams.get(key)
    if held is None:
        made = _allocated_for_good(device, words)
        made[:counters].zero_()
        held = _of_streams.setdefault(key, made)  # another thread may have come first
    return held


def new_workspace(device: torch.device, words: int, counters: int) -> Tensor:
    """One for a single launch, which sets its counters to zero before.

    For a launch that a graph captures: nobody knows on which stream it will run, beside what, and how often. It lies in
    the graph's memory, and the graph then has a small fill more.
    """
    made = _allocated(device, words)
    made[:counters].zero_()
    return made


def _allocated(device: torch.device, words: int) -> Tensor:
    return torch.empty(words, dtype=torch.float64, device=device)


def _allocated_for_good(device: torch.device, words: int) -> Tensor:
    """Memory that the current stream may write, of no pool that the calling thread allocates from.

    ``torch.compile`` warms up for a CUDA graph while the graph's pool serves its thread, and does not let anything
    remain in there. Another thread has the general pool, on the default stream: so that stream comes first.
    """
    if device.type != "cuda":
        return _allocated(device, words)
    with ThreadPoolExecutor(1) as another_thread:
        made = another_thread.submit(_allocated, device, words).result()
    torch.cuda.current_stream(device).wait_stream(torch.cuda.default_stream(device))
    return made

from __future__ import annotations

import os

import torch

ONE_THREAD_ELEMENTS = 2**16
"""Image elements of a batch up to which one thread is used: on 128 digits of 16x16 two threads are no faster than one,
and many times slower where another process holds a core, because threads that wait for each other spin."""


def use_threads(threads: int | None, elements: int, processes: int = 1) -> None:
    """Set the CPU threads of this process; where none are asked for, one for batches of few image elements.

    Args:
        threads: what was asked for.
        elements: image elements of the batch of one process.
        processes: how many share the cores; where threads are not asked for, each has its part of them.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    elif elements <= ONE_THREAD_ELEMENTS:
        torch.set_num_threads(1)
    elif processes > 1:
        torch.set_num_threads(min(torch.get_num_threads(), max(1, len(os.sched_getaffinity(0)) // processes)))

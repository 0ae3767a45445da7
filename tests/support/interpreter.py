"""Triton's interpreter, which runs kernels where there is no GPU: slow, and not quite what devices do."""

import os

import torch

import geco_ext

IS_USED = os.environ.get("TRITON_INTERPRET") == "1" and "triton" in geco_ext.available_backends()
CASES = 2
SLOW_FILES = ("test_windows", "test_structural_similarity", "test_model_kernels", "test_image_step")


def leave_out_cases(config, items):
    """What takes others a millisecond takes it a second: of all cases of a test of windowed constraints, or of the
    kernels of models, the first and the one half-way. All run on a GPU, and with ``--every-case``."""
    cases = {}
    for item in items:
        if item.path.name.startswith(SLOW_FILES) and _is_on_triton(item):
            cases.setdefault((item.path, item.originalname), []).append(item)
    left_out = set()
    for of_test in cases.values():
        every = -(-len(of_test) // CASES)
        left_out.update(item for i, item in enumerate(of_test) if i % every != 0)
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def _is_on_triton(item):
    return hasattr(item, "callspec") and "triton" in (item.callspec.params.get(name) for name in ("backend", "device"))


def round_as_devices_do():
    """To the nearest bfloat16; the interpreter cuts digits off."""
    if not IS_USED:
        return
    from triton.runtime.interpreter import InterpreterBuilder

    cast = InterpreterBuilder.cast_impl

    def rounding_cast(self, source, dtype):
        if (str(source.dtype.scalar), str(dtype.scalar)) == ("fp32", "bf16"):
            rounded = torch.from_numpy(source.data).bfloat16().view(torch.int16).numpy()
            return type(source)(rounded.view("uint16"), dtype.scalar)
        return cast(self, source, dtype)

    InterpreterBuilder.cast_impl = rounding_cast

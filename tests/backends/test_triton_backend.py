"""What is particular to the Triton backend; what it computes is tested with all backends (test_backends.py)."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import windows

import geco_ext
from geco_ext import backends
from geco_ext.backends.allocation import new_gradient
from geco_ext.contract import LossCall, UpdateSettings
from geco_ext.ops import dispatch
from geco_ext.state import new_block, views

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [
    pytest.mark.skipif(
        "triton" not in geco_ext.available_backends(), reason=f"triton: {dispatch.unavailable('triton')}"
    ),
    *([pytest.mark.gpu] if DEVICE == "cuda" else []),  # make gpu runs what is marked
]


def call_for(update, kl, accumulated=1):
    """Two constraints on one image, one of them per channel, on the state after some steps."""
    torch.manual_seed(0)
    terms = "squared_error; squared_error rows=3"
    settings = UpdateSettings(0.9, 0.1, 1.0, "log", 1.0, accumulated) if update else None
    block = new_block(4, device=DEVICE)
    views(block).kappa.fill_(0.2)
    x_hat, x = (torch.rand(4, 3, 40, 30, device=DEVICE) for _ in range(2))
    kl = kl.to(DEVICE)
    gradients = [new_gradient(x_hat), new_gradient(kl)]
    return LossCall([x_hat], [x], [None], kl, block, terms, (-1,), gradients, 4, 3 * 40 * 30, settings)


@pytest.mark.parametrize("kl", [torch.rand(4), torch.tensor([1.0, float("inf"), 0.0, 2.0])])
def test_the_two_halves_of_a_step_of_several_processes(kl):
    triton, reference = backends.load("triton"), backends.load("reference")
    ours, theirs = call_for(True, kl), call_for(True, kl)
    sums, expected_sums = triton.constraint_sums(ours), reference.constraint_sums(theirs)
    torch.testing.assert_close(sums, expected_sums, rtol=1e-6, atol=1e-6, equal_nan=True)
    for gradient, expected in zip(ours.gradients, theirs.gradients, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-9)
    assert torch.equal(ours.block, call_for(True, kl).block)  # sums move nothing
    loss, factor = triton.update_from_sums(ours, sums * 2, 2)
    expected_loss, expected_factor = reference.update_from_sums(theirs, expected_sums * 2, 2)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert torch.equal(factor, expected_factor)


def test_many_rows_and_the_same_bits_twice():
    """More constraints than a warp has lanes."""
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        criterion = geco_ext.GECOLoss([geco_ext.ReconstructionError(0.2, channels=70)]).to(DEVICE)
        with geco_ext.use_backend("triton"):
            for _ in range(3):
                x_hat, x = (torch.rand(2, 70, 5, 6, device=DEVICE) for _ in range(2))
                losses.append(criterion(x_hat, x, torch.rand(2, device=DEVICE)))
        losses.append(criterion.log_multiplier.clone())
        assert int(criterion.steps) == 3
    for first, second in zip(losses[:4], losses[4:], strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_gradients_are_scaled_and_rounded_once(dtype):
    buffer_type = torch.float64 if dtype == torch.float64 else torch.float32
    buffers = [torch.rand(shape, dtype=buffer_type, device=DEVICE) for shape in [(1,), (37,), (3, 4000)]]
    outputs = [torch.empty_like(buffer, dtype=dtype) for buffer in buffers]
    factor = torch.tensor(0.3, device=DEVICE)
    backends.load("triton").scale_gradients(buffers, outputs, factor)
    # Triton's interpreter cuts bfloat16 off where devices round.
    rtol = 2**-7 if dtype == torch.bfloat16 and DEVICE == "cpu" else 0
    for buffer, output in zip(buffers, outputs, strict=True):
        torch.testing.assert_close(output, (buffer * factor.to(buffer_type)).to(dtype), rtol=rtol, atol=0)


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_gradients_are_scaled_in_place(factor):
    buffers = [torch.rand(100, device=DEVICE), torch.rand(3, 5, device=DEVICE)]
    expected = [buffer * factor for buffer in buffers]
    backends.load("triton").scale_gradients(buffers, buffers, torch.tensor(factor, device=DEVICE))
    for buffer, value in zip(buffers, expected, strict=True):
        assert torch.equal(buffer, value)


def test_channels_far_apart():
    """The third one begins beyond what 32 bits count."""
    apart = 2**30 + 4
    memory = torch.empty(2 * apart + 4, dtype=torch.float16, device=DEVICE)  # never touched but at three places
    x_hat = memory.as_strided((1, 3, 2, 2), (3 * apart, apart, 2, 1)).copy_(torch.rand(1, 3, 2, 2))
    x, kl = torch.rand(1, 3, 2, 2, device=DEVICE), torch.zeros((), device=DEVICE)
    constraints = [geco_ext.ReconstructionError(0.1, channels=3)]
    with geco_ext.use_backend("triton"):
        criterion = geco_ext.GECOLoss(constraints).to(DEVICE)
        criterion(x_hat, x, kl)
    expected = (x_hat.double() - x.double()).square().mean((0, 2, 3)) - 0.1**2
    torch.testing.assert_close(criterion.last_constraint, expected, rtol=1e-5, atol=1e-7)


def test_negated_views():
    """Their sign is no part of the memory."""
    x_hat, x = (torch.randn(2, 1, 4, 4, dtype=torch.complex64, device=DEVICE).conj().imag for _ in range(2))
    kl = torch.randn(2, dtype=torch.complex64, device=DEVICE).conj().imag
    losses = []
    for images in ((x_hat, x, kl), tuple(view.resolve_neg() for view in (x_hat, x, kl))):
        with geco_ext.use_backend("triton"):
            losses.append(geco_ext.GECOLoss([geco_ext.ReconstructionError(0.2)]).to(DEVICE)(*images))
    assert x_hat.is_neg()
    assert kl.is_neg()
    assert torch.equal(*losses)


def test_constants_of_a_kernel_come_apart():
    """Down to the last one as Triton's own: releases before 3.8 take no text, None or tuple inside a tuple."""
    import triton.language as tl

    from geco_ext.backends.triton.kernels.constants import Constants

    def come_apart(value):
        assert isinstance(value, tl.constexpr)
        if not isinstance(value.value, Constants):
            return value.value
        return tuple(come_apart(value.value[i]) for i in range(len(value.value)))

    tree = ("windowed", None, (True, 1, (tl.float32, ())), 2.5)
    made = Constants(tree)
    assert tuple(come_apart(element) for element in made) == tree
    assert made == Constants(tree)
    assert hash(made) == hash(Constants(tree))
    assert made != Constants(("windowed", None, (1, 1, (tl.float32, ())), 2.5))  # True is not 1: code is made for it
    assert repr(made) == repr(tree)  # names compiled code on disk


def compiled_by(program):
    """What a program that compiles kernels for an H100 prints of each of them."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(Path(windows.__file__).with_name(program)), "90"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return re.split(r"^=== ", result.stdout, flags=re.MULTILINE)[1:]


def innermost_loops(ptx):
    """From a label to the branch back to it, where no other such pair lies between."""
    labels = {label[1]: label.start() for label in re.finditer(r"^(\$\w+):", ptx, re.MULTILINE)}
    branches = re.finditer(r"\bbra(?:\.uni)?\s+(\$\w+);", ptx)
    loops = [(labels[b[1]], b.end()) for b in branches if b[1] in labels and labels[b[1]] < b.start()]
    inner = [loop for loop in loops if not any(loop[0] <= o[0] and o[1] < loop[1] for o in loops)]
    return [ptx[begin:end] for begin, end in inner]


def needs_compiler(test):
    """Not on a GPU either: there the kernels themselves run, and this would take make gpu a minute."""
    missing = importlib.util.find_spec("triton.backends.nvidia") is None
    return pytest.mark.skipif(missing or DEVICE == "cuda", reason="no compiler of Triton for NVIDIA, or a GPU")(test)


@needs_compiler
def test_kernels_compile_to_wide_accesses():
    """Without a device: all kernels become code for an H100, images and gradients in accesses of 128 bits."""
    kernels = compiled_by("triton_ptx.py")
    assert len(kernels) == 18
    of_step = {kernel.split(":")[0]: kernel for kernel in kernels}
    of_float32 = of_step["lagrangian_kernel torch.float32"]
    assert of_float32.count("ld.global.v4.b32") == 8  # 4 of x_hat, 4 of x in flight for each thread
    assert of_float32.count("st.global.v4.b32") == 4
    assert of_float32.count("atom.global.gpu.acq_rel") == 1
    (loop,) = (loop for loop in innermost_loops(of_float32) if "st.global.v4" in loop)
    for meeting in ("bar.sync", "shfl", "redux"):
        assert meeting not in loop  # threads add up for themselves until the last round

    # A thread has 8 numbers of a tile: 32 bytes (64) of each image and channel, for moments and again for the gradient.
    # For dark beside bright, in float32: two pixels to compare with each of 7 things, and the gradient to add to.
    again = 2 * 7
    accesses = {
        "torch.float32": (".v4.b32", 24 + 2 * again + 6, 6),
        "torch.float16": (".v4.b32", 12 + again + 6, 6),  # 8 numbers at once
        "torch.float64": (".v2.b64", 48, 12),
    }
    for dtype, (wide, loads, stores) in accesses.items():
        windows = of_step[f"lagrangian_kernel windows {dtype}"]
        assert windows.count(f"ld.global{wide}") == loads
        assert windows.count(f"st.global{wide}") == stores
    # Statistics and coefficients of patches stay in registers: what is spilled is the same for all tiles, or needed
    # where one begins and ends. A statistic of a tile alone is 32 bytes of a thread, and ten are merged with ten.
    for step in ("torch.float32", "torch.float16", "torch.float64", "large"):
        windows = of_step[f"lagrangian_kernel windows {step}"]
        assert int(re.search(r"(\d+) bytes spilled", windows.splitlines()[0])[1]) <= 128
        assert windows.count("atom.global.gpu.acq_rel") == 1


@needs_compiler
def test_kernels_of_models_compile_to_wide_accesses():
    """Forward and backward of each, of three types; and of gates with rows of their own."""
    kernels = compiled_by("triton_model_ptx.py")
    assert {kernel.split(" ")[0] for kernel in kernels} == {
        *(f"{name}{half}_kernel" for name in ("gaussian", "gates", "coupling") for half in ("", "_backward")),
        "sum_of_shares_kernel",
    }
    assert len(kernels) == 5 * 3 * 2 + 4 * 3 + 2
    for kernel in kernels:
        title = kernel.splitlines()[0]
        assert " 0 bytes spilled" in title
        if title.startswith("sum_of_shares"):
            continue
        accesses = re.findall(r"\b(ld|st)\.global\.([.\w]+)", kernel)
        wide = [access for access, width in accesses if width in ("v4.b32", "v2.b64")]
        assert {"ld", "st"} == set(wide), title
        assert len(accesses) - len(wide) <= 1, title  # a sum, or its gradient

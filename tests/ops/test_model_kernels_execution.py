"""How the C++ kernels of models run: exponentials over their whole range, every instruction set, threads, one lock."""

import os
import subprocess
import sys
from pathlib import Path

import model_operators
import pytest
import torch
from model_operators import KERNELS, inputs_of, outputs_and_gradients, weights_for

import geco_ext
from geco_ext.backends.cpu import BACKEND
from geco_ext.backends.native import extension

pytestmark = pytest.mark.skipif("cpu" not in geco_ext.available_backends(), reason="the C++ kernels are not built")


def compute(name, *arguments):
    """The operator as the C++ kernels compute it, without checks before them."""
    return BACKEND.model_operator(name, arguments[0], *arguments)


@pytest.fixture(params=KERNELS)
def kernel(request):
    return request.param


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# One block, several pieces of an example, examples that share blocks, rows of pixels.
@pytest.mark.parametrize("shape", [(3, 24), (3, 20000), (700, 40), (5, 24, 32, 33)], ids=str)
def test_same_bits_with_any_number_of_threads(kernel, shape, threads):
    inputs = inputs_of(kernel, shape)
    if len(shape) == 4:
        inputs = [tensor.contiguous(memory_format=torch.channels_last) for tensor in inputs]
    weights = weights_for(kernel, shape)
    results = []
    with geco_ext.use_backend("cpu"):
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            results.append(outputs_and_gradients(KERNELS[kernel][0], inputs, weights))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


EVERYTHING = """
import torch
from model_operators import KERNELS, assert_close, exact, inputs_of, outputs_and_gradients, weights_for
from test_model_kernels_execution import check_elementary_functions
import geco_ext

print(geco_ext.backends.native.extension()[0].cpu.capability())
torch.manual_seed(0)
check_elementary_functions()
tails = [(2, n) for n in (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 33, 63, 300)]
with geco_ext.use_backend("cpu"):
    for kernel in KERNELS:
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            for shape in (*tails, (2, 5, 3, 3)):
                inputs = inputs_of(kernel, shape, dtype)
                if len(shape) == 4:
                    inputs = [tensor.contiguous(memory_format=torch.channels_last) for tensor in inputs]
                weights = weights_for(kernel, shape, dtype=dtype)
                got = outputs_and_gradients(KERNELS[kernel][0], inputs, weights)
                assert_close(got, exact(kernel, inputs, weights), dtype)
"""


@pytest.mark.parametrize("capability", extension()[0].cpu.capabilities() if extension()[0] else [])
def test_every_instruction_set(capability):
    environment = {
        **os.environ,
        "GECO_EXT_CPU_CAPABILITY": capability,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(model_operators.__file__).parent)]),
    }
    result = subprocess.run([sys.executable, "-c", EVERYTHING], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[0] == capability


def check_elementary_functions():
    """Within a few units in the last place of numbers of any size, denormal ones as well."""
    for dtype, lowest, highest in ((torch.float32, -106.0, 90.0), (torch.float64, -748.0, 711.0)):
        x = torch.cat([
            torch.empty(20000, dtype=torch.float64).uniform_(lowest, highest),
            torch.empty(20000, dtype=torch.float64).uniform_(-1, 1),
            torch.randn(20000, dtype=torch.float64) * torch.logspace(-30, 0, 20000, dtype=torch.float64),
            torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, 1e30, -1e30]),
        ]).to(dtype)[None]  # fmt: skip
        check_exponential(x)
        check_squashing(x)


def check_exponential(x):
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    exact = x.double().exp()
    for got, wanted in (
        (compute("affine_coupling", one, x, zero, False)[0], exact),
        (compute("affine_coupling", one, -x, zero, True)[0], exact),
        (compute("gaussian_rsample_kl", zero, x, None, None, one)[0], exact),
    ):
        assert_within_units(got, wanted, 3)


def check_squashing(x):
    """The logistic function and tanh, through gates that let one of them through."""
    one, zero, open_gate = torch.ones_like(x), torch.zeros_like(x), torch.full_like(x, 800.0)
    _, forgotten = compute("lstm_gates", torch.cat([-open_gate, x, zero, zero], 1), one)
    numbers = x.double()
    sigmoid = torch.where(numbers < -40, numbers.exp(), numbers.sigmoid())  # PyTorch's is zero where exp(-x) overflows
    assert_within_units(forgotten, sigmoid, 5)
    _, candidate = compute("lstm_gates", torch.cat([open_gate, -open_gate, x, zero], 1), zero)
    assert_within_units(candidate, x.double().tanh(), 5)


def assert_within_units(got, exact, units):
    """Units in the last place of ``got``'s type; NaN where NaN is due, infinity where it is."""
    rounded = exact.to(got.dtype)
    assert torch.equal(got.isnan(), rounded.isnan())
    assert torch.equal(got.isinf(), rounded.isinf())
    here = rounded.isfinite()
    unit = (torch.nextafter(rounded.abs(), torch.tensor(torch.inf, dtype=got.dtype)) - rounded.abs()).double()
    gap = (got.double() - exact).abs() / unit.clamp(min=torch.finfo(torch.float64).smallest_normal * 2**-52)
    assert gap[here].max() <= units, (float(gap[here].max()), exact[here][gap[here].argmax()])


def test_operands_that_do_not_belong_together_are_refused():
    """The declared operators can be called past the checks of the public functions."""
    x = torch.randn(2, 8)
    for call, error in (
        (lambda: compute("affine_coupling", x, x[:, :4], x, False), ValueError),
        (lambda: compute("affine_coupling", x, x.double(), x, False), TypeError),
        (lambda: compute("affine_coupling", x, x.to("meta"), x, False), ValueError),
        (lambda: compute("affine_coupling", x.long(), x.long(), x.long(), False), TypeError),
        (lambda: compute("lstm_gates", x, x), ValueError),
        (lambda: compute("lstm_gates", x[:, :7], x[:, :1]), ValueError),
        (lambda: compute("affine_coupling_backward", x, torch.ones(3), x, x, False), ValueError),
    ):
        with pytest.raises(error):
            call()


def test_negated_views_are_read_with_their_sign():
    numbers = torch.randn(3, 8, dtype=torch.complex64)
    negated = numbers.conj().imag
    assert negated.is_neg()
    y, log_det = compute("affine_coupling", negated, negated, negated, False)
    expected, expected_log_det = compute("affine_coupling", *[-numbers.imag] * 3, False)
    assert torch.equal(y, expected)
    assert torch.equal(log_det, expected_log_det)


def test_tensors_of_many_dimensions():
    x = torch.randn(2, *[1, 2] * 6)
    y, log_det = compute("affine_coupling", x, x, x, False)
    assert y.shape == x.shape
    torch.testing.assert_close(log_det, x.flatten(1).sum(1))

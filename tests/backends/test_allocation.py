"""Tensors that kernels write whole are not filled first, and lie as PyTorch would have them."""

import pytest
import torch
from windows import LAYOUTS

from geco_ext import GECOLoss, LocalStatistics, PatchNCC, ReconstructionError
from geco_ext import functional as gf
from geco_ext.backends.allocation import empty_like, new_empty, new_gradient


@pytest.fixture
def deterministic():
    """``torch.use_deterministic_algorithms(True)``, under which PyTorch fills every new tensor with NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def fills(call):
    """How many tensors that hold a number PyTorch fills."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        call()
    return sum(event.name == "aten::fill_" and event.input_shapes[0] != [0] for event in profile.events())


def step(backend, device, dtype):
    criterion = GECOLoss([ReconstructionError(0.1), PatchNCC(0.9, 3), LocalStatistics(0.1, 3)]).to(device)
    x_hat, x = (torch.rand(2, 3, 8, 8, device=device, dtype=dtype) for _ in range(2))
    x_hat.requires_grad_()
    kl, one = torch.rand(2, device=device), torch.ones((), device=device)

    def call():
        x_hat.grad = None
        criterion(x_hat, x, kl).backward(one)

    call()
    return call, x_hat


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_step_fills_no_tensor_that_it_writes(backend, device, dtype):
    if backend == "reference":
        pytest.skip("plain PyTorch, which fills the tensors that it makes")
    call, x_hat = step(backend, device, dtype)
    torch.use_deterministic_algorithms(True)
    try:
        filled = fills(call)
    finally:
        torch.use_deterministic_algorithms(False)
    assert filled <= (1 if backend == "cpu" else 0)  # the loss itself
    assert torch.isfinite(x_hat.grad).all()


def test_model_kernels_fill_nothing(backend, device, deterministic):
    if backend == "reference":
        pytest.skip("plain PyTorch, which fills the tensors that it makes")
    q, p = (torch.rand(2, 4, 5, 5, device=device) for _ in range(2))
    gates = torch.rand(2, 16, 5, 5, device=device)
    assert fills(lambda: gf.lstm_gates(gates, q)) == 0
    assert fills(lambda: gf.affine_coupling(q, p, q)[0]) <= 1  # [B] of the compiled kernels
    for output in (*gf.lstm_gates(gates, q), *gf.affine_coupling(q, p, q)):
        assert torch.isfinite(output).all()


def test_pytorch_would_fill(deterministic):
    """What the tests above rest on."""
    assert fills(lambda: torch.empty(3)) == 1
    assert fills(lambda: empty_like(torch.ones(3))) == fills(lambda: torch.ones(3))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_a_buffer_lies_as_pytorch_lays_it(deterministic, layout, dtype):
    tensor = LAYOUTS[layout](torch.rand(2, 3, 4, 5))
    made, expected = empty_like(tensor, dtype=dtype), torch.empty_like(tensor, dtype=dtype)
    assert (made.shape, made.stride(), made.dtype) == (expected.shape, expected.stride(), expected.dtype)
    assert made.untyped_storage().nbytes() == expected.untyped_storage().nbytes()
    assert new_gradient(tensor.half()).dtype == torch.float32
    for shape in ((), (3,), (2, 0, 4), (2, 3, 4)):
        made, expected = new_empty(tensor, shape, dtype), tensor.new_empty(shape, dtype=dtype)
        assert (made.shape, made.stride(), made.dtype) == (expected.shape, expected.stride(), expected.dtype)


def test_a_subclass_makes_its_own(deterministic):
    class Image(torch.Tensor):
        pass

    assert type(empty_like(torch.rand(2).as_subclass(Image))) is Image


def test_values_are_the_same_either_way(backend, device):
    gradients = []
    for mode in (False, True):
        torch.manual_seed(0)
        torch.use_deterministic_algorithms(mode)
        try:
            _, x_hat = step(backend, device, torch.float32)
        finally:
            torch.use_deterministic_algorithms(False)
        gradients.append(x_hat.grad)
    assert torch.equal(*gradients)

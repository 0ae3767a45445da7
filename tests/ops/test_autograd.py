"""What backward does with the buffers of the forward pass."""

import pytest
import torch

import geco_ext
from geco_ext import functional as gf


def loss_of(x_hat, x):
    return gf.reconstruction_error(x_hat, x, kappa=0.1, reduction="sum")


def expected_gradient(x_hat, x):
    return 2 * (x_hat - x).detach() / x_hat.shape[0]


def pair(device="cpu"):
    return torch.rand(2, 1, 8, 8, device=device, requires_grad=True), torch.rand(2, 1, 8, 8, device=device)


def test_backward_twice_on_a_retained_graph(backend, device):
    x_hat, x = pair(device)
    loss = loss_of(x_hat, x)
    first = torch.autograd.grad(loss, x_hat, torch.tensor(3.0, device=device), retain_graph=True)[0]
    kept = first.clone()
    first.zero_()  # what backward returned belongs to the caller
    second = torch.autograd.grad(loss, x_hat, torch.tensor(2.0, device=device), retain_graph=True)[0]
    third = torch.autograd.grad(loss, x_hat)[0]
    assert torch.allclose(kept, 3 * expected_gradient(x_hat, x))
    assert torch.allclose(second, 2 * expected_gradient(x_hat, x))
    assert torch.allclose(third, expected_gradient(x_hat, x))


def test_backward_twice_without_keeping_the_graph_is_refused(backend, device):
    x_hat, x = pair(device)
    loss = loss_of(x_hat, x)
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_second_derivatives_are_refused(backend, device):
    x_hat, x = pair(device)
    (gradient,) = torch.autograd.grad(loss_of(x_hat, x), x_hat, create_graph=True)
    assert torch.allclose(gradient, expected_gradient(x_hat, x))
    for function_of_it in (gradient.sum, lambda: (gradient * x_hat).sum()):
        with pytest.raises(RuntimeError, match="no second derivative"):
            function_of_it().backward(retain_graph=True)


def test_gradients_accumulate_in_leaves(backend, device):
    x_hat, x = pair(device)
    loss_of(x_hat, x).backward()
    loss_of(x_hat, x).backward()
    assert torch.allclose(x_hat.grad, 2 * expected_gradient(x_hat, x))


def test_a_scaled_loss_scales_its_gradient(backend, device):
    x_hat, x = pair(device)
    (loss_of(x_hat, x) * 0.5).backward()
    assert torch.allclose(x_hat.grad, 0.5 * expected_gradient(x_hat, x))


def test_the_buffer_becomes_the_gradient_of_a_leaf():
    """Nothing is copied between the kernel and ``x_hat.grad``."""
    x_hat, x = pair()
    loss = loss_of(x_hat, x)
    (buffer,) = [g for g in loss.grad_fn.gradients if g is not None]
    address = buffer.data_ptr()
    del buffer
    loss.backward()
    assert x_hat.grad.data_ptr() == address


def test_grad_scaler_with_half_precision_loses_nothing():
    """Scaling before rounding: entries far below half precision's range survive."""
    x = torch.zeros(1, 1, 64, 64, dtype=torch.float16)
    x_hat = (x + 1e-4).requires_grad_()
    loss = gf.reconstruction_error(x_hat, x, kappa=0.1)
    (loss * 65536.0).backward()
    expected = 2 * x_hat.detach().double() / 4096 * 65536.0
    assert (x_hat.grad.double() - expected).abs().max() <= 2**-11 * expected.abs().max()


def test_hooks_and_checkpointing_see_a_usual_node():
    x_hat, x = pair()
    seen = []
    x_hat.register_hook(lambda gradient: seen.append(gradient.shape))
    criterion = geco_ext.GECOLoss([geco_ext.ReconstructionError(0.1)])
    criterion(x_hat * 1.0, x, torch.zeros(())).backward()
    assert seen == [x_hat.shape]

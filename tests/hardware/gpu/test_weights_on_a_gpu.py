"""Weights of elements on a GPU: large images in vectors and tiles, captured steps, nothing that waits for the device.
On the CPU these are rehearsals of the same calls."""

import math

import elementwise
import pytest
import torch
from on_device import assert_same, captured, launches, never_waiting, synchronize

import geco_ext
from geco_ext import GECOLoss, ReconstructionError
from geco_ext import functional as gf

gpu = pytest.mark.gpu


@pytest.fixture(params=["auto", "triton"])
def device(request):
    """The best backend of the device, and Triton's where there is a GPU."""
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if request.param == "auto":
        yield place
        return
    if place.type == "cpu":
        pytest.skip("needs a GPU")
    with geco_ext.use_backend("triton"):
        yield place


def problem(shape, dtype, device, layout=torch.contiguous_format, shared=True):
    """Images, and weights a third of which are zero; what these hide is NaN. The last example has none."""
    x_hat, x = (torch.rand(shape).to(dtype).contiguous(memory_format=layout) for _ in range(2))
    weight = torch.rand((shape[0], 1, *shape[2:]) if shared else shape)
    weight[weight < 0.3] = 0
    if shape[0] > 1:
        weight[-1] = 0
    hidden = (weight == 0).expand(shape)
    clean = x_hat.double().clone().requires_grad_(), x.double().clone(), weight.double()
    x_hat[hidden], x[hidden] = math.nan, math.inf
    return (x_hat.to(device).requires_grad_(), x.to(device), weight.to(device)), clean


@pytest.mark.parametrize("shape", [(4, 3, 256, 256), (3, 3, 129, 135), (2, 1, 512, 510), (5, 40, 16, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shared", [True, False])
def test_large_images_equal_the_oracle(device, shape, dtype, layout, shared):
    (x_hat, x, weight), (y_hat, y, w) = problem(shape, dtype, device, layout, shared)
    tolerance = {torch.float64: 1e-11, torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(dtype, 1e-5)
    for row in elementwise.TABLE:
        value = row.function(x_hat, x, kappa=0.1, weight=weight)
        expected = row.expected(y_hat, y, 0.1, weight=w)
        (wanted,) = torch.autograd.grad(expected, y_hat)
        # As GradScaler does: half precision has its digits there.
        incoming = 2.0 ** round(-math.log2(wanted.abs().max().item()))
        (gradient,) = torch.autograd.grad(value, x_hat, torch.full_like(value, incoming))
        assert value.item() == pytest.approx(expected.item(), abs=1e-6)
        assert (gradient.double().cpu() / incoming - wanted).norm() <= tolerance * wanted.norm()
        assert gradient[(weight == 0).expand_as(gradient)].count_nonzero() == 0


def criterion(device):
    """Of several kinds, divided in several ways."""
    return GECOLoss(elementwise.constraints_of(elementwise.weighted_vectors(channels=3)[0])).to(device)


def test_a_captured_step_replays_as_it_runs(device):
    """New images, targets and weights are copied into the tensors of the graph."""
    (x_hat, x, weight), _ = problem((4, 3, 32, 32), torch.float32, device)
    graphed, ordinary = criterion(device), criterion(device)
    kl = torch.zeros((), device=device)

    def step(loss_of):
        x_hat.grad = None
        loss_of(x_hat, x, kl, weight=weight).backward()

    replay = captured(lambda: step(graphed), device, warm_up=3)
    for _ in range(3):
        step(ordinary)
    for seed in range(4):
        torch.manual_seed(seed)
        weight.copy_(torch.rand(weight.shape) * (torch.rand(weight.shape) > 0.5))
        x.copy_(torch.rand(x.shape))
        with torch.no_grad():
            x_hat.copy_(torch.rand(x.shape))
        replay()
        synchronize(device)
        step(ordinary)
    assert_same([graphed._block], [ordinary._block])


def test_no_step_waits_for_the_device(device):
    (x_hat, x, weight), _ = problem((4, 3, 32, 32), torch.float32, device)
    loss_of, kl = criterion(device), torch.zeros((), device=device)
    loss_of(x_hat, x, kl, weight=weight).backward()
    with never_waiting(device):
        loss_of(x_hat, x, kl, weight=weight).backward()
    assert int(loss_of.steps) == 2


@gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_bad_weights_make_the_constraint_nan_without_waiting(device, bad):
    (x_hat, x, weight), _ = problem((4, 3, 32, 32), torch.float32, device)
    weight[1, 0, 3, 3] = bad
    loss_of, kl = criterion(device), torch.zeros((), device=device)
    with never_waiting(device):
        loss = loss_of(x_hat, x, kl, weight=weight)
    assert not loss.isfinite()
    assert int(loss_of.skipped) == 1
    assert not gf.reconstruction_error(x_hat, x, kappa=0.1, weight=weight).isfinite()


@gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_one_kernel_of_ours_and_a_short_pass_over_the_weights(device):
    (x_hat, x, weight), _ = problem((4, 3, 64, 64), torch.float32, device)
    loss_of, kl = GECOLoss([ReconstructionError(0.1)]).to(device), torch.zeros((), device=device)
    loss_of(x_hat, x, kl, weight=weight)
    seen = launches(lambda: loss_of(x_hat, x, kl, weight=weight))
    assert sum("lagrangian" in name for name in seen) == 1
    assert len(seen) <= 20


def test_two_runs_have_the_same_bits(device):
    (x_hat, x, weight), _ = problem((8, 3, 257, 256), torch.float32, device, shared=False)
    kl = torch.zeros((), device=device)
    results = []
    for _ in range(2):
        loss_of = criterion(device)
        loss = loss_of(x_hat, x, kl, weight=weight)
        results.append([loss.detach(), *torch.autograd.grad(loss, x_hat), loss_of._block.clone()])
    assert_same(*results)

"""What to look at first on a new GPU: every patch size, odd sizes, tensors that begin anywhere, every type; beside the
reference backend on the same tensors. On the CPU a rehearsal."""

from contextlib import nullcontext

import pytest
import torch
from on_device import synchronize

import geco_ext
from geco_ext import GECOLoss, LocalStatistics, PatchNCC, ReconstructionError

PATCHES = [*range(1, 18), 24, 32]
OFFSETS = [0, 1, 2, 4, 7]  # elements from an address that all vectors like
SHAPES = [(64, 3, 32, 32), (4, 3, 256, 256), (3, 3, 200, 1023), (2, 1, 37, 41), (5, 7, 33, 129)]
ACCURACY = {torch.float32: (1e-6, 1e-5), torch.float64: (1e-12, 1e-10)}  # of constraints, of the gradient's norm
ACCURACY |= {torch.float16: (1e-6, 5e-4), torch.bfloat16: (1e-6, 4e-3)}


@pytest.fixture(autouse=True)
def _is_a_kernel(backend, device, slow):
    if backend == "reference" or slow:
        pytest.skip("what the others are compared with" if backend == "reference" else "interpreted: test_windows.py")


def images(shape, offset, device, dtype=torch.float32):
    """x_hat and x, each so many elements into its memory."""
    count = torch.Size(shape).numel()
    memory = [torch.rand(count + 8).to(device, dtype) for _ in range(2)]
    return [m[offset : offset + count].view(shape) for m in memory]


def compare(constraints, x_hat, x):
    """A training step, and a second one that sees the state of the first."""
    kl = torch.rand(len(x)).to(x.device)
    found = []
    for name in (None, "reference"):
        criterion = GECOLoss(constraints()).to(x.device)
        prediction = x_hat.detach().requires_grad_()
        with nullcontext() if name is None else geco_ext.use_backend(name):
            for _ in range(2):
                prediction.grad = None
                loss = criterion(prediction, x, kl)
                loss.backward()
        synchronize(x.device)
        found.append((criterion.last_constraint.double(), prediction.grad.double(), loss.double()))
    (values, gradient, loss), (wanted_values, wanted, wanted_loss) = found
    of_value, of_gradient = ACCURACY[x.dtype]
    assert (values - wanted_values).abs().max() <= of_value
    assert (gradient - wanted).norm() <= of_gradient * wanted.norm()
    assert abs(loss - wanted_loss) <= 2 * x[0].numel() * of_value / 0.1**2


def of_patch(patch, per_channel=False):
    return lambda: [ReconstructionError(0.1), PatchNCC(0.9, patch, per_channel=per_channel)]


@pytest.mark.parametrize("offset", OFFSETS)
def test_errors_at_any_offset(device, offset):
    for shape in [*SHAPES, (64, 1, 1024, 1024)] if device.type == "cuda" else SHAPES[:1]:
        compare(lambda: [ReconstructionError(0.1)], *images(shape, offset, device))


@pytest.mark.parametrize("per_channel", [False, True], ids=["joint", "per channel"])
@pytest.mark.parametrize("patch", PATCHES)
def test_every_patch_size(device, patch, per_channel):
    """One number a patch has no variance, and what four say of it is hardly steadier: from three on."""
    constraints = of_patch(patch, per_channel) if patch > 2 else lambda: [LocalStatistics(0.1, patch)]
    for offset in OFFSETS[:3]:
        compare(constraints, *images((2, 3, 37, 41), offset, device))


@pytest.mark.parametrize("patch", [3, 4, 8, 11, 16])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_every_plan(device, shape, patch):
    if device.type != "cuda" and len(shape) * shape[2] * shape[3] > 1 << 14:
        shape = (1, shape[1], 37, 65)
    for offset in OFFSETS:
        compare(of_patch(patch), *images(shape, offset, device))


@pytest.mark.parametrize("dtype", ACCURACY, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_every_type(device, dtype, layout):
    for constraints in (of_patch(8), of_patch(11, per_channel=True), lambda: [ReconstructionError(0.1)]):
        for offset in OFFSETS[:2]:
            x_hat, x = images((2, 3, 37, 41), offset, device, dtype)
            compare(constraints, x_hat, x)
            compare(constraints, x_hat.contiguous(memory_format=layout), x)


def test_all_constraints_of_a_small_step(device):
    def constraints():
        return [
            ReconstructionError(0.1),
            PatchNCC(0.9, 4, name="a"),
            PatchNCC(0.9, 8, name="b"),
            LocalStatistics(0.1, 8),
        ]

    for batch in (64, 1, 7, 256) if device.type == "cuda" else (2,):
        compare(constraints, *images((batch, 3, 32, 32), 0, device))

"""How a step runs: no waiting for the device, no second image-sized tensor, the same bits on any number of threads."""

import itertools
import os
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import geco_ext
from geco_ext import GECOLoss, ReconstructionError
from geco_ext.backends import reference
from geco_ext.backends.native import extension

INSTRUCTION_SETS = extension()[0].cpu.capabilities() if extension()[0] else []  # those that this processor has

# Operators that read a number on the host, or whose result's shape depends on one.
WAITING = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.item.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.unique_dim.default,
}


class NoWaiting(TorchDispatchMode):
    """Fails where a GPU would have to be waited for, and when data would move to another device."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(function)
        assert function not in WAITING, f"{function} waits for the device"
        return function(*args, **(kwargs or {}))


def everything():
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    return [
        ReconstructionError(0.1),
        ReconstructionError(0.1, channels=3, name="channel"),
        geco_ext.PatchNCC(0.9, patch_size=4),
        geco_ext.LocalStatistics(0.1, patch_size=4, stride=2),
        geco_ext.FeatureReconstructionError(0.1, torch.nn.Conv2d(3, 4, 3)),
        geco_ext.ClassificationAccuracy(0.9, classifier),
    ]


def test_a_step_never_waits_for_the_device(monkeypatch):
    """Everything a step does around the kernels, and the reference kernels themselves (they run on any device)."""
    # The one check that reads numbers is for tensors in host memory, where nothing has to be waited for.
    monkeypatch.setattr(torch.Tensor, "aminmax", lambda self: (0, 0))
    criterion = GECOLoss(everything(), accumulation_steps=2)
    x_hat, x, labels = torch.rand(2, 3, 8, 8, requires_grad=True), torch.rand(2, 3, 8, 8), torch.tensor([1, 2])
    kl = torch.rand(2, requires_grad=True)
    with NoWaiting() as mode:
        for _ in range(4):
            criterion(x_hat, x, kl, labels=labels).backward()
            criterion.metrics()
            criterion.constraints[0].kappa = 0.2
        criterion.eval()(x_hat, x, kl, labels=labels).backward()
    assert torch.ops.geco_ext.training_loss.default in mode.seen


def test_the_reference_kernels_never_wait_for_the_device(monkeypatch):
    calls = []
    monkeypatch.setattr(reference.BACKEND, "lagrangian", lambda call: calls.append(call) or torch.zeros(()))
    criterion = GECOLoss(everything())
    with geco_ext.use_backend("reference"):
        x = torch.rand(2, 3, 8, 8)
        criterion(x.clone().requires_grad_(), x, torch.rand(2, requires_grad=True), labels=torch.tensor([1, 2]))
    monkeypatch.undo()
    with torch.no_grad(), NoWaiting() as mode:
        reference.BACKEND.lagrangian(calls[0])
        sums = reference.BACKEND.constraint_sums(calls[0])
        reference.BACKEND.update_from_sums(calls[0], sums, 1)
    assert len(mode.seen) > 100


def step_bytes(threads):
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    criterion = GECOLoss([ReconstructionError(0.1), ReconstructionError(0.2, channels=3, name="channel")])
    results = []
    for _ in range(3):
        x_hat = torch.rand(4, 3, 96, 101, requires_grad=True)
        loss = criterion(x_hat, torch.rand(4, 3, 96, 101), torch.rand(4))
        loss.backward(torch.tensor(0.3))
        results += [loss.detach(), x_hat.grad, criterion._block.clone()]
    return results


@pytest.mark.skipif("cpu" not in geco_ext.available_backends(), reason="the C++ kernels are not built")
def test_the_same_bits_on_any_number_of_threads():
    try:
        one, *others = [step_bytes(threads) for threads in (1, 2, 3)]
    finally:
        torch.set_num_threads(1)
    for a, b in itertools.chain.from_iterable(zip(one, other, strict=True) for other in others):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())


@pytest.mark.skipif("cpu" not in geco_ext.available_backends(), reason="the C++ kernels are not built")
@pytest.mark.parametrize("capability", INSTRUCTION_SETS)
def test_every_instruction_set_computes_the_same(capability):
    """A wheel runs on processors older than the one it was built on: each set of loops runs in a process of its own."""
    program = """
import torch, geco_ext
from geco_ext import _C, functional as gf
print(_C.cpu.capability())
torch.manual_seed(0)
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    x_hat, x = torch.rand(3, 2, 37, 29).to(dtype), torch.rand(3, 2, 37, 29).to(dtype)
    x_hat.requires_grad_()
    loss = gf.reconstruction_error(x_hat, x, kappa=0.1)
    loss.backward(torch.tensor(512.0))
    expected = (x_hat.detach().double() - x.double()).square().mean() - 0.01
    gradient = (1024 * (x_hat.detach().float() - x.float()) / x.numel())
    assert abs(float(loss) - float(expected)) < 1e-6
    tolerance = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    assert (x_hat.grad.float() - gradient).norm() <= tolerance * gradient.norm()
special = torch.tensor([0.0, -0.0, 5.9604645e-08, 6.1e-05, 65504.0, -1.5, float("inf"), float("nan")] * 3)
for dtype in (torch.float16, torch.bfloat16):
    x_hat = special.to(dtype).view(1, 1, 4, 6).requires_grad_()
    gf.reconstruction_error(x_hat, torch.zeros_like(x_hat), kappa=0.1, reduction="sum").backward(torch.tensor(0.5))
    assert torch.equal(x_hat.grad.nan_to_num(7.0), x_hat.detach().nan_to_num(7.0)), (x_hat.grad, x_hat)
"""
    environment = {**os.environ, "GECO_EXT_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[0] == capability


@pytest.mark.skipif("cpu" not in geco_ext.available_backends(), reason="the C++ kernels are not built")
def test_an_instruction_set_that_is_not_here_is_refused():
    """Not answered by another one in silence: whoever measures would not know what."""
    program = """
import torch, geco_ext
x_hat = torch.rand(2, 1, 8, 8, requires_grad=True)
for attempt in range(2):
    try:
        geco_ext.GECOLoss(geco_ext.ReconstructionError(0.1))(x_hat, torch.rand(2, 1, 8, 8), torch.zeros(2))
    except ValueError as error:
        print(error)
"""
    for name in ("avx9", ""):
        environment = {**os.environ, "GECO_EXT_CPU_CAPABILITY": name}
        result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        expected = (
            f"environment variable GECO_EXT_CPU_CAPABILITY: got '{name}', expected one of those that this processor "
            f"has: {', '.join(INSTRUCTION_SETS)}"
        )
        assert result.stdout.splitlines() == [expected] * 2
        listed = [sys.executable, "-m", "geco_ext", "info"]
        result = subprocess.run(listed, env=environment, capture_output=True, text=True)
        assert result.returncode == 2
        assert expected in result.stderr


@pytest.mark.skipif("cpu" not in geco_ext.available_backends(), reason="the C++ kernels are not built")
def test_one_gradient_buffer_and_no_other_image():
    x_hat, x = torch.rand(8, 3, 128, 128, requires_grad=True), torch.rand(8, 3, 128, 128)
    image_bytes = x.numel() * 4
    criterion = GECOLoss([ReconstructionError(0.1)])
    criterion(x_hat, x, torch.rand(8)).backward()
    x_hat.grad = None
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        criterion(x_hat, x, torch.rand(8)).backward()
    events = profile.profiler.kineto_results.events()
    allocations = [event.nbytes() for event in events if event.name() == "[memory]" and event.nbytes() > 0]
    assert [size for size in allocations if size >= image_bytes // 4] == [image_bytes]
    assert sum(size for size in allocations if 0 < size < image_bytes // 4) < 4096

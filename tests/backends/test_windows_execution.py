"""How windowed constraints run: the same bits every time, in little memory, under autograd, compiler and GradScaler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.library import opcheck
from windows import FLOATS, Window, kinds, name_of, operator_arguments, pair

from geco_ext import GECOLoss, LocalStatistics, PatchNCC, ReconstructionError
from geco_ext.backends.native import extension

PARTS = [
    (0.9, Window("ncc", 8)),
    (0.5, Window("ncc", 5, stride=3, per_channel=True)),
    (0.1, Window("local", 8, eps=1e-3)),
]


def criterion(device="cpu", **settings):
    windows = [window.constraint(kappa, name=f"window {i}") for i, (kappa, window) in enumerate(PARTS)]
    return GECOLoss([ReconstructionError(0.1), *windows], **settings).to(device)


def steps(shape, device="cpu"):
    """Everything that three steps on the same data write."""
    torch.manual_seed(0)
    geco, written = criterion(device), []
    for dtype in (torch.float32, torch.float16, torch.float64):
        x_hat, x = pair("random", shape, dtype, device)
        loss = geco(x_hat, x, torch.rand(shape[0], device=device))
        (gradient,) = torch.autograd.grad(loss, x_hat, torch.full_like(loss, 0.3))
        written += [loss.detach(), gradient, geco._block.nan_to_num()]
    return written


def assert_same_bits(first, *others):
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert torch.equal(a, b)


def test_the_same_bits_every_time(backend, device, slow):
    shape = (2, 2, 19, 23) if slow else (5, 3, 45, 37)
    assert_same_bits(*(steps(shape, device) for _ in range(3)))


@pytest.mark.parametrize("shape", [(5, 3, 64, 61), (1, 3, 301, 255), (1, 1, 9, 2000)], ids=["batch", "large", "wide"])
def test_the_same_bits_on_any_number_of_threads(cpu_windows, shape):
    results = []
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            results.append(steps(shape))
    finally:
        torch.set_num_threads(1)
    assert_same_bits(*results)


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["baseline", "avx2"])
def test_narrower_instruction_sets_pass_the_same_tests(cpu_windows, capability):
    """A wheel runs on processors older than the one it was built on."""
    if extension()[0].cpu.capability() == capability:
        pytest.skip("all tests run on this one")
    if capability not in extension()[0].cpu.capabilities():
        pytest.skip("this processor does not have it")
    environment = {**os.environ, "GECO_EXT_CPU_CAPABILITY": capability}
    folder = Path(__file__).parents[1] / "constraints"
    tests = [str(folder / f"test_windows{topic}.py") for topic in ("", "_extremes")]
    command = [sys.executable, "-m", "pytest", "-q", "-k", "cpu", "-p", "no:cacheprovider", *tests]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "skipped" not in result.stdout


PEAK_MEMORY = """
import ctypes, sys
import torch, geco_ext
from geco_ext import GECOLoss, LocalStatistics, PatchNCC, ReconstructionError

threads, patch, batch, side = map(int, sys.argv[1:5])
dtype = getattr(torch, sys.argv[5])
libc = ctypes.CDLL(None)
libc.prctl(41, 1, 0, 0, 0)  # no huge pages, of which one touched byte counts for two MiB
torch.set_num_threads(threads)

def status(name):
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

x_hat, x = (torch.rand(batch, 3, side, side, dtype=dtype) for _ in range(2))
x_hat.requires_grad_()
kl = torch.rand(batch)
with geco_ext.use_backend("cpu"):
    GECOLoss([ReconstructionError(0.1)])(x_hat, x, kl).backward()  # threads, code
    x_hat.grad = None
    criterion = GECOLoss([ReconstructionError(0.1), PatchNCC(0.9, patch), LocalStatistics(0.1, patch, stride=2)])
    libc.malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    before = status("VmRSS")
    criterion(x_hat, x, kl).backward()
print(status("VmHWM") - before - x.nbytes)
"""


@pytest.mark.parametrize("images", [(16, 256, "float32"), (1, 760, "float64")], ids=["batch", "large"])
@pytest.mark.parametrize(("threads", "patch"), [(1, 8), (2, 3), (2, 16)])
def test_memory_of_a_step(cpu_windows, threads, patch, images):
    """One gradient buffer and at most 2 MiB for each thread, of whoever asked for it."""
    command = [sys.executable, "-c", PEAK_MEMORY, *map(str, (threads, patch, *images))]
    result = subprocess.run(command, capture_output=True, text=True)
    if "PermissionError" in result.stderr:
        pytest.skip("this system does not let a process reset its peak memory")
    assert result.returncode == 0, result.stderr
    page_counting = 1 << 20  # the system counts pages in batches, and code is loaded as it is reached
    assert int(result.stdout) <= threads * (2 << 20) + page_counting


WITHOUT_MEMORY = """
import resource, torch
from geco_ext import PatchNCC, GECOLoss, available_backends, use_backend

torch.set_num_threads(2)
assert "cpu" in available_backends()  # loads the extension, whose size is not what this is about
criterion = GECOLoss([PatchNCC(0.9, patch_size=1000)])
x_hat, x = torch.rand(2, 1, 1200, 1200, requires_grad=True), torch.rand(2, 1, 1200, 1200)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 40 * 2**20,) * 2)
try:
    with use_backend("cpu"):
        criterion(x_hat, x, torch.zeros(2))
except MemoryError:
    print("refused", int(criterion.steps))
"""


def test_no_memory_is_an_error_of_the_call(cpu_windows):
    """Also where other threads than the caller's find none."""
    result = subprocess.run([sys.executable, "-c", WITHOUT_MEMORY], capture_output=True, text=True)
    assert result.stdout.split() == ["refused", "0"], result.stdout + result.stderr


@pytest.mark.parametrize("window", kinds(4, 2), ids=name_of)
def test_backward_again_on_a_retained_graph(backend, device, window):
    x_hat, x = pair("random", (2, 2, 9, 8), device=device)
    (expected,) = torch.autograd.grad(window.functional(x_hat, x), x_hat)
    value = window.functional(x_hat, x)
    for factor in (4.0, 2.0, 1.0):
        incoming = torch.full_like(value, factor)
        (gradient,) = torch.autograd.grad(value, x_hat, incoming, retain_graph=True)
        assert torch.equal(gradient, factor * expected)
        gradient.zero_()  # what backward returned belongs to the caller


@pytest.mark.parametrize("window", kinds(4, 2), ids=name_of)
def test_grad_scaler_loses_nothing_in_half_precision(backend, device, window):
    """A decoder that gives float16, parameters in float32, as under autocast."""
    scale = 2.0**12
    x_hat, x = pair("random", (2, 3, 24, 25), torch.float16, device)
    parameter = x_hat.detach().float().requires_grad_()
    (expected,) = torch.autograd.grad(window.functional(parameter, x), parameter)
    scaler = torch.amp.GradScaler(device.type, init_scale=scale)
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scaler.scale(window.functional(parameter.half(), x)).backward()
    scaler.unscale_(optimizer)
    smallest = torch.finfo(torch.float16).smallest_normal * 2**-10 / scale
    allowed = 2**-11 * expected.abs() + 1e-6 * expected.abs().max() + smallest / 2
    assert ((parameter.grad - expected).abs() <= allowed).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("operator", ["training_loss", "evaluation_loss", "constraint_sums"])
def test_opcheck(backend, device, operator, dtype):
    arguments = operator_arguments(PARTS, *pair("random", (2, 3, 9, 8), dtype, device, "channels_last"))
    update = (0.99, 0.05, 5.0, "log", 1.0, 1) if operator == "training_loss" else ()
    opcheck(getattr(torch.ops.geco_ext, operator).default, (*arguments, *update))


def test_a_step_compiles_without_graph_breaks(backend, device):
    eager, compiled = criterion(device), criterion(device)
    decoder = torch.nn.Conv2d(3, 3, 3, padding=1).to(device)
    torch._dynamo.reset()
    fast = torch.compile(lambda x, kl: compiled(decoder(x), x, kl), fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            x, kl = torch.rand(2, 3, 12, 11, device=device), torch.rand(2, device=device)
            losses = fast(x, kl), eager(decoder(x), x, kl)
            gradients = [torch.autograd.grad(loss, list(decoder.parameters())) for loss in losses]
            assert torch.allclose(*losses, rtol=1e-5)
            for got, expected in zip(*gradients, strict=True):
                assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert int(compiled.steps) == 3
    assert torch.allclose(eager.log_multiplier, compiled.log_multiplier, rtol=1e-6)


def test_evaluation_compiles(backend, device):
    geco = GECOLoss([PatchNCC(0.9, 4), LocalStatistics(0.1, 3)], multiplier_init=2.0).to(device).eval()
    x_hat, x = pair("random", (2, 1, 8, 8), device=device)
    kl = torch.zeros((), device=device)
    torch._dynamo.reset()
    losses = torch.compile(geco, fullgraph=True, backend="aot_eager")(x_hat, x, kl), geco(x_hat, x, kl)
    assert torch.allclose(*losses)
    assert torch.allclose(*(torch.autograd.grad(loss, x_hat)[0] for loss in losses))

"""Calls that overlap on a GPU do not count together: evaluation beside training, graphs beside calls and each other.
And nothing is left on devices that nobody uses."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from on_device import CONSTRAINTS, TrainingStep, assert_same, captured, synchronize

import geco_ext
from geco_ext import functional as gf
from geco_ext.ops import dispatch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

LARGE = (16, 3, 512, 500)  # a call of it takes longer than its launch
SMALL = (4, 3, 64, 60)


@pytest.fixture(params=["cuda", "triton"])
def device(request):
    """Of a backend that serves all calls."""
    if request.param not in geco_ext.available_backends():
        pytest.skip(f"{request.param}: {dispatch.unavailable(request.param)}")
    with geco_ext.use_backend(request.param):
        yield torch.device("cuda", 0)


@pytest.fixture(params=CONSTRAINTS)
def kind(request):
    """Which constraints."""
    return request.param


def two_streams(device):
    made = [torch.cuda.Stream(device) for _ in range(2)]
    for stream in made:
        stream.wait_stream(torch.cuda.current_stream(device))
    return made


def evaluation(criterion, x):
    """The loss of an eval call, with nothing left to the caching allocator's other streams."""
    with torch.no_grad():
        return criterion(x * 0.9, x, torch.zeros((), device=x.device))


def test_an_evaluation_beside_training(kind, device):
    """Of one criterion, whose multipliers stand still; both make what they make alone."""
    train, evaluate = two_streams(device)
    step = TrainingStep(kind, device, LARGE)
    step.criterion.update = geco_ext.MultiplierUpdate(lr=0.0, proportional=0.0)
    step()
    twin = geco_ext.GECOLoss(CONSTRAINTS[kind]()).to(device)  # the same state, in eval mode
    twin.load_state_dict(step.criterion.state_dict())
    twin._block = step.criterion._block
    twin._attach()
    twin.eval()
    x = torch.rand(SMALL, device=device)
    synchronize(device)
    expected = evaluation(twin, x)
    synchronize(device)
    losses = []
    for _ in range(30):
        with torch.cuda.stream(train):
            step()
        with torch.cuda.stream(evaluate):
            losses.append(evaluation(twin, x))
    synchronize(device)
    assert all(torch.equal(loss, expected) for loss in losses)
    assert int(step.criterion.steps) == 31


def test_a_graph_beside_calls_on_the_stream_it_was_captured_on(kind, device):
    """A replay goes to any stream: its counter is its own."""
    alone, beside = (TrainingStep(kind, device, LARGE, seed=1) for _ in range(2))
    other_alone, other = (TrainingStep(kind, device, SMALL, seed=2) for _ in range(2))
    for _ in range(12):
        alone()
        other_alone()
    side, elsewhere = two_streams(device)
    with torch.cuda.stream(side):
        for _ in range(2):
            beside()
            other()
    synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        beside()
    for _ in range(10):
        with torch.cuda.stream(elsewhere):
            graph.replay()
        with torch.cuda.stream(side):
            other()
    synchronize(device)
    assert_same(alone.state(), beside.state())
    assert_same(other_alone.state(), other.state())


def test_two_graphs_at_once(kind, device):
    """Captured on one stream, replayed on two."""
    alone = [TrainingStep(kind, device, LARGE, seed) for seed in (1, 2)]
    graphed = [TrainingStep(kind, device, LARGE, seed) for seed in (1, 2)]
    replays = [captured(step, device, warm_up=2) for step in graphed]
    for step in alone:
        for _ in range(12):
            step()
    synchronize(device)
    for _ in range(10):
        for replay, stream in zip(replays, two_streams(device), strict=True):
            with torch.cuda.stream(stream):
                replay()
        synchronize(device)
    for first, second in zip(alone, graphed, strict=True):
        assert_same(first.state(), second.state())


def test_two_calls_in_one_graph_on_two_streams(device):
    """Branches of a graph run at once too."""
    x = torch.rand(LARGE, device=device)
    y = torch.rand(LARGE, device=device)

    def both(side):
        main = torch.cuda.current_stream(device)
        side.wait_stream(main)
        first = gf.patch_ncc(x, y, kappa=0.5, patch_size=8)
        with torch.cuda.stream(side):
            second = gf.reconstruction_error(x, y, kappa=0.1)
        main.wait_stream(side)
        return first, second

    side = torch.cuda.Stream(device)
    expected = [value.clone() for value in both(side)]
    synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = both(side)
    for _ in range(10):
        graph.replay()
        synchronize(device)
        assert_same(list(made), expected)


def test_large_latents_on_two_streams(device):
    """Model kernels, a few examples shared by many blocks, count in the memory of their stream."""
    q = torch.randn(2, 64, 128, 128, device=device)
    p = torch.randn(2, 64, 128, 128, device=device) * 0.3
    z, kl = gf.gaussian_rsample_kl(q, p, noise=p)
    synchronize(device)
    made = []
    for _ in range(20):
        for stream in two_streams(device):
            with torch.cuda.stream(stream):
                made.append(gf.gaussian_rsample_kl(q, p, noise=p))
    synchronize(device)
    for again in made:
        assert_same(list(again), [z, kl])


def test_compiled_steps_with_cuda_graphs_leave_nothing_in_their_pool(kind, device):
    """``torch.compile`` warms up in the pool of its graphs and then looks for what has stayed in there."""
    torch._dynamo.reset()
    step, ordinary = TrainingStep(kind, device, SMALL), TrainingStep(kind, device, SMALL)
    fast = torch.compile(step.loss, mode="reduce-overhead")
    for _ in range(6):
        torch.compiler.cudagraph_mark_step_begin()
        step.optimizer.zero_grad(set_to_none=True)
        fast().backward()
        step.optimizer.step()
        ordinary()
    synchronize(device)
    assert int(step.criterion.steps) == 6
    for first, second in zip(step.state(), ordinary.state(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6, equal_nan=True)  # NaN: a bound not given


def has_context(device):
    """Whether the driver holds a context of this process on a device."""
    driver = ctypes.CDLL("libcuda.so.1")
    flags, active = ctypes.c_uint(), ctypes.c_int()
    assert driver.cuInit(0) == 0
    assert driver.cuDevicePrimaryCtxGetState(device, ctypes.byref(flags), ctypes.byref(active)) == 0
    return bool(active.value)


ASKING = """
import sys; sys.path.insert(0, {folder!r})
from test_streams_on_a_gpu import has_context
import geco_ext
geco_ext.available_backends()
assert not has_context(0), "asking which backends there are made a context"
"""

ON_THE_SECOND = """
import sys, threading; sys.path.insert(0, {folder!r})
from test_streams_on_a_gpu import has_context
import torch, geco_ext
x = torch.rand(2, 3, 16, 16, device="cuda:1")
def step():
    criterion = geco_ext.GECOLoss([geco_ext.ReconstructionError(0.1)]).to("cuda:1")
    criterion(x.clone().requires_grad_(), x, torch.zeros((), device="cuda:1")).backward()
    torch.cuda.synchronize("cuda:1")
step()
thread = threading.Thread(target=step); thread.start(); thread.join()
assert has_context(1) and not has_context(0), "device 0 has a context"
"""


def in_a_new_process(text):
    code = text.format(folder=str(Path(__file__).parent))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_asking_for_backends_makes_no_context():
    in_a_new_process(ASKING)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_device_that_nobody_uses_has_no_context():
    in_a_new_process(ON_THE_SECOND)

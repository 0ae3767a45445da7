"""A whole training step on a GPU: captured in a graph, on several streams and devices, without waiting, in few kernels
and little memory. On the CPU these are rehearsals of the same calls."""

import contextlib

import pytest
import torch
from on_device import (
    CONSTRAINTS,
    TrainingStep,
    assert_same,
    captured,
    launches,
    never_waiting,
    streams,
    synchronize,
)

import geco_ext
from geco_ext import GECOLoss, ReconstructionError
from geco_ext.ops import dispatch
from geco_ext.ops import loss as loss_operators

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(params=CONSTRAINTS)
def kind(request):
    """Which constraints."""
    return request.param


def test_a_captured_step_replays_as_it_runs(kind, device):
    """Multipliers, averages and weights after replays are those of ordinary steps, bit by bit."""
    graphed, ordinary = TrainingStep(kind, device), TrainingStep(kind, device)
    warm_up, replays = (3, 5) if device.type == "cuda" else (1, 1)
    replay = captured(graphed, device, warm_up)
    for _ in range(replays):
        replay()
    for _ in range(warm_up + replays):
        ordinary()
    synchronize(device)
    assert int(graphed.criterion.steps) == warm_up + replays
    assert_same(graphed.state(), ordinary.state())


def test_a_replay_sees_a_kappa_written_since(kind, device):
    step = TrainingStep(kind, device)
    step.optimizer.param_groups[0]["lr"] = 0.0
    replay = captured(step, device, warm_up=2 if device.type == "cuda" else 0)
    replay()
    first, multiplier = step.criterion.last_constraint, step.criterion.multiplier
    step.criterion.constraints[0].kappa = 0.3
    replay()
    change = (step.criterion.last_constraint - first).tolist()
    assert change == pytest.approx([0.1**2 - 0.3**2, *[0.0] * (len(change) - 1)], abs=1e-9)
    assert not torch.equal(step.criterion.multiplier, multiplier)


def test_new_data_in_the_captured_tensors(kind, device):
    """What a loader writes into the graph's input."""
    graphed, ordinary = TrainingStep(kind, device), TrainingStep(kind, device)
    warm_up, batches = (3, 3) if device.type == "cuda" else (1, 1)
    replay = captured(graphed, device, warm_up)
    for _ in range(warm_up):
        ordinary()
    for seed in range(batches):
        x = torch.rand(graphed.x.shape, generator=torch.Generator().manual_seed(10 + seed)).to(device)
        for step, call in ((graphed, replay), (ordinary, ordinary)):
            step.x.copy_(x)
            call()
    synchronize(device)
    assert_same(graphed.state(), ordinary.state())


def test_two_streams_at_once(kind, device):
    """Two criteria, each on a stream of its own, do not see each other."""
    shape, count = ((8, 3, 128, 125), 10) if device.type == "cuda" else ((2, 3, 12, 11), 2)
    alone = [TrainingStep(kind, device, shape, seed) for seed in (1, 2)]
    for step in alone:
        for _ in range(count):
            step()
    together = [TrainingStep(kind, device, shape, seed) for seed in (1, 2)]
    places = streams(device, 2)
    for _ in range(count):
        for step, place in zip(together, places, strict=True):
            with place:
                step()
    synchronize(device)
    for first, second in zip(alone, together, strict=True):
        assert_same(first.state(), second.state())


@gpu
@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_devices(kind, device):
    """Also with tensors on a device that is not the current one."""
    if device.type != "cuda":
        pytest.skip("for the backends of GPUs")
    steps = [TrainingStep(kind, torch.device("cuda", index)) for index in (0, 1)]
    for _ in range(5):
        for step in steps:
            step()
    assert_same(steps[0].state(), steps[1].state())
    with pytest.raises(ValueError, match="devices cuda:0 and cuda:1"):
        steps[0].criterion(steps[0].x, steps[1].x, torch.zeros((), device="cuda:0"))


def test_a_step_waits_for_nothing(kind, device):
    """Nor do metrics and schedules; the first step of a criterion included."""
    captured(TrainingStep(kind, device), device, warm_up=2)  # whatever is compiled or loaded once
    step = TrainingStep(kind, device)
    step.optimizer.zero_grad()
    with never_waiting(device):
        for _ in range(3):
            step()
            step.criterion.metrics()
            step.criterion.constraints[0].kappa = 0.2
        step.criterion.eval()
        step.loss().backward()
    assert int(step.criterion.steps) == 3


def leaves(kind, device, shape=None):
    shape = shape or ((16, 3, 32, 32) if device.type == "cuda" else (2, 3, 12, 11))
    x_hat, x = torch.rand(shape, device=device, requires_grad=True), torch.rand(shape, device=device)
    kl = torch.rand(shape[0], device=device, requires_grad=True)
    return GECOLoss(CONSTRAINTS[kind]()).to(device), x_hat, x, kl


def test_three_kernels_at_most(kind, backend, device):
    """``criterion(...)`` and ``backward()``, PyTorch's fill of the incoming gradient included."""
    criterion, x_hat, x, kl = leaves(kind, device)

    def step():
        x_hat.grad = kl.grad = None
        criterion(x_hat, x, kl).backward()

    for _ in range(3):
        step()
    names = launches(step)
    if device.type == "cuda" and not names:
        pytest.skip("the profiler sees no kernels here")
    if backend in ("cuda", "triton"):
        assert len(names) <= 3, names


@gpu
def test_memory_of_a_step_is_one_gradient(kind, backend, device):
    if device.type != "cuda" or backend == "reference":
        pytest.skip("for the kernels of GPUs")
    criterion, x_hat, x, kl = leaves(kind, device, (16, 3, 256, 256))
    criterion(x_hat, x, kl).backward()
    x_hat.grad = kl.grad = None
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    criterion(x_hat, x, kl).backward()
    synchronize(device)
    extra = torch.cuda.max_memory_allocated(device) - before
    assert x.nbytes <= extra <= x.nbytes + (2 << 20)


@contextlib.contextmanager
def little_memory(device, headroom, size, monkeypatch):
    """Allocations beyond so many bytes fail; at once where they take ``size`` and more than the headroom."""
    if device.type != "cuda":
        with monkeypatch.context() as patch:
            patch.setattr(
                loss_operators, "new_gradient", lambda tensor: (_ for _ in ()).throw(MemoryError("rehearsal"))
            )
            yield
        return
    synchronize(device)
    torch.cuda.empty_cache()
    index = torch.cuda.current_device() if device.index is None else device.index  # a fraction is set by index alone
    total = torch.cuda.get_device_properties(index).total_memory

    def limit(more):
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(index) + more) / total, index)

    held = []
    try:
        # The limit is one of segments, and those of earlier tests that hold a tensor still are not given back: what is
        # free in them has to be taken first.
        limit(0)
        with contextlib.suppress(torch.OutOfMemoryError):
            for _ in range((torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)) // size):
                held.append(torch.empty(size, dtype=torch.uint8, device=device))
        limit(headroom)
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, index)


@pytest.mark.parametrize("headroom", [8 << 20, 60 << 20], ids=["no gradient", "little else"])
def test_out_of_memory_leaves_the_state_as_it_is(kind, backend, device, monkeypatch, headroom):
    """The second headroom holds a gradient buffer: the kernels need no more, plain PyTorch does."""
    shape = (16, 3, 512, 512) if device.type == "cuda" else (2, 3, 12, 11)
    criterion, x_hat, x, kl = leaves(kind, device, shape)
    criterion(x_hat, x, kl).backward()
    x_hat.grad = kl.grad = None
    before = criterion._block.clone()
    steps = int(criterion.steps)
    with little_memory(device, headroom, x.nbytes, monkeypatch):
        try:
            criterion(x_hat, x, kl)
        except (torch.OutOfMemoryError, MemoryError):
            failed = True
        else:
            failed = False
    if device.type != "cuda" or headroom < x.nbytes:
        assert failed
    elif backend in ("cuda", "triton"):
        assert not failed
    if failed:
        assert_same([criterion._block], [before])
    criterion(x_hat, x, kl).backward()
    assert int(criterion.steps) == steps + (1 if failed else 2)


@pytest.mark.parametrize("moved", ["x", "kl", "criterion"])
def test_tensors_on_different_devices_are_refused(backend, device, moved):
    elsewhere = "cpu" if device.type == "cuda" else "meta"
    criterion, x_hat, x, kl = leaves("errors", device)
    criterion(x_hat, x, kl)
    before = criterion._block.clone()
    given = {"x_hat": x_hat, "x": x, "kl": kl}
    if moved == "criterion":
        given = {name: tensor.to(elsewhere) for name, tensor in given.items()}
    else:
        given[moved] = given[moved].to(elsewhere)
    with pytest.raises(ValueError, match="got device"):
        criterion(**given)
    assert_same([criterion._block], [before])


@gpu
@pytest.mark.gpu
def test_the_best_backend_serves_a_gpu():
    """In the order cuda, triton, reference; and a backend for tensors in host memory refuses these."""
    names = [name for name in ("cuda", "triton", "reference") if name in geco_ext.available_backends()]
    image = torch.zeros(1, 1, 8, 8, device="cuda")
    assert dispatch.select_for_scaling(image.device) is geco_ext.backends.load(names[0])
    if "cpu" in geco_ext.available_backends():
        with geco_ext.use_backend("cpu"), pytest.raises(RuntimeError, match="'cpu' cannot serve this call"):
            GECOLoss([ReconstructionError(0.1)]).to("cuda")(image, image, torch.zeros((), device="cuda"))

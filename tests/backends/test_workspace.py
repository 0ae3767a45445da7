"""Scratch memory of kernels: never shared by launches that may overlap (on a GPU: gpu/test_streams_on_a_gpu.py)."""

import threading
import types

import pytest
import torch

from geco_ext import GECOLoss, LocalStatistics, ReconstructionError
from geco_ext.backends import cuda, workspace
from geco_ext.backends.workspace import new_workspace, workspace_of_stream

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def none_made_yet(monkeypatch):
    monkeypatch.setattr(workspace, "_of_streams", {})


def test_launches_on_one_stream_share_memory_others_do_not():
    first = workspace_of_stream(CPU, 1, words=64, counters=16)
    assert workspace_of_stream(CPU, 1, words=64, counters=16) is first
    others = [workspace_of_stream(CPU, 2, 64, 16), workspace_of_stream(torch.device("cpu", 0), 1, 64, 16)]
    assert len({tensor.data_ptr() for tensor in (first, *others)}) == 3


def test_counters_start_at_zero(monkeypatch):
    monkeypatch.setattr(torch, "empty", lambda words, **options: torch.full((words,), 7.0, **options))
    for made in (workspace_of_stream(CPU, 1, 64, 16), new_workspace(CPU, 64, 16)):
        assert made.dtype == torch.float64
        assert made[:16].eq(0).all()
        assert made[16:].eq(7).all()


def test_threads_that_come_at_once_agree():
    barrier, found = threading.Barrier(4), []

    def ask():
        barrier.wait()
        found.append(workspace_of_stream(CPU, 1, 64, 16).data_ptr())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


def test_what_stays_is_allocated_beside_the_calling_thread(monkeypatch):
    """Whose pool may be that of a graph; the stream then waits for the one that the memory belongs to."""
    empty, threads, waited = torch.empty, [], []

    def on_host(words, dtype, device):
        threads.append(threading.get_ident())
        return empty(words, dtype=dtype)

    monkeypatch.setattr(torch, "empty", on_host)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: types.SimpleNamespace(wait_stream=waited.append))
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: "default stream")
    for _ in range(2):
        workspace_of_stream(torch.device("cuda", 0), 5, 64, 16)
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
    assert waited == ["default stream"]


def test_an_allocation_that_fails_leaves_nothing_behind(monkeypatch):
    def fails(*arguments, **options):
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", fails)
        with pytest.raises(torch.OutOfMemoryError):
            workspace_of_stream(torch.device("cuda", 0), 5, 64, 16)
    assert workspace._of_streams == {}


def test_a_captured_launch_has_memory_of_its_own(monkeypatch):
    capturing = {5}
    kernels = types.SimpleNamespace(
        TICKET_WORDS=16, is_capturing=lambda stream: stream in capturing, workspace_words=lambda index: 64
    )
    monkeypatch.setattr(cuda.BACKEND, "kernels", kernels, raising=False)
    monkeypatch.setattr(cuda, "_workspace_words", kernels.workspace_words)
    tensor = torch.zeros(1)
    captured = [cuda.BACKEND.workspace(tensor, 0, 5) for _ in range(2)]
    capturing.clear()
    ordinary = [cuda.BACKEND.workspace(tensor, 0, stream) for stream in (5, 5, 6)]
    assert ordinary[0] is ordinary[1]
    assert len({made.data_ptr() for made in (*captured, *ordinary)}) == 4


def test_an_evaluation_writes_nothing_to_the_state(backend, device):
    """As its operator declares: it may run beside a training step on another stream."""
    criterion = GECOLoss([ReconstructionError(0.1), LocalStatistics(0.1, 3)]).to(device)
    x_hat, x = torch.rand(2, 1, 6, 6, device=device, requires_grad=True), torch.rand(2, 1, 6, 6, device=device)
    kl = torch.rand(2, device=device)
    criterion(x_hat, x, kl)
    block = criterion._block
    before, version = block.clone(), block._version
    criterion.eval()(x_hat, x, kl).backward()
    assert torch.equal(block.view(torch.int64), before.view(torch.int64))
    assert block._version == version

"""CUDA graphs of ``torch.compile(mode="reduce-overhead")`` where there is no GPU: what inductor decides on a step.

It is asked to make graphs of a step on the CPU, its objection to the CPU apart; the place where it would capture one is
taken by a stand-in. On a GPU: ``tests/hardware/gpu/test_compiled_on_a_gpu.py``.
"""

import pytest
import torch
from torch._dynamo.utils import counters

from geco_ext import GECOLoss, LocalStatistics, PatchNCC, ReconstructionError

config = pytest.importorskip("torch._inductor.config")


class Captures:
    """Takes the place of ``cudagraph_post_compile``."""

    def __init__(self):
        self.reasons, self.moving, self.mutated = [], [], 0

    def __call__(self, example_inputs, compiled_graph, *_):
        self.reasons += compiled_graph.cudagraph_info.cudagraph_fail_reasons
        static = set(compiled_graph.fx_kwargs["static_input_idxs"] or ())
        mutated = set(compiled_graph.mutated_input_idxs)
        self.mutated += len(mutated)
        self.moving += mutated - static  # a graph may write to what keeps its address, and nothing else


@pytest.fixture
def captures(monkeypatch):
    utils, output_code = (pytest.importorskip(f"torch._inductor.{name}") for name in ("cudagraph_utils", "output_code"))
    if not hasattr(output_code, "cudagraph_post_compile"):
        pytest.skip("this release of PyTorch captures elsewhere")
    made = Captures()
    monkeypatch.setattr(utils, "check_multiple_devices_or_any_cpu_nodes", lambda nodes: None)
    monkeypatch.setattr(output_code, "cudagraph_post_compile", made)
    # One graph, not parts around what runs on the CPU; and nothing from the cache of an earlier, ordinary run.
    wanted = {
        "triton.cudagraphs": True,
        "fx_graph_cache": False,
        "force_disable_caches": True,
        "graph_partition": False,
    }
    torch._dynamo.reset()
    with config.patch({name: value for name, value in wanted.items() if _is_known(name)}):
        yield made


def _is_known(name):
    try:
        getattr(config.triton if name.startswith("triton.") else config, name.split(".")[-1])
    except AttributeError:
        return False
    return True


def test_a_training_step_is_captured(captures):
    criterion = GECOLoss([ReconstructionError(0.1), PatchNCC(0.9, 3), LocalStatistics(0.1, 3)])
    scale, x = torch.rand(1, requires_grad=True), torch.rand(2, 3, 8, 8)
    counters.clear()
    step = torch.compile(lambda x: criterion(x * scale, x, scale.expand(2)), fullgraph=True)
    for _ in range(2):
        step(x).backward()
    assert counters["inductor"]["cudagraph_skips"] == 0
    assert captures.reasons == []
    assert captures.moving == []
    assert captures.mutated > 0  # the state block
    assert int(criterion.steps) == 2


def test_state_that_moves_would_be_found(captures):
    """What the test above rests on: a block that is an input like any other."""
    step = torch.compile(lambda block, x: block.add_(x) * 1.0, fullgraph=True)
    step(torch.zeros(3), torch.ones(3))
    assert captures.moving == [0]

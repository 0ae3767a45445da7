"""``torch.compile(mode="reduce-overhead")``: CUDA graphs are not skipped because the state is mutated."""

import pytest
import torch
from on_device import CONSTRAINTS, TrainingStep, synchronize
from torch._dynamo.utils import counters


@pytest.fixture(params=CONSTRAINTS)
def kind(request):
    return request.param


def test_cuda_graphs_are_not_skipped(kind, device):
    """On the CPU, where nothing is captured: the same step through the same compiler."""
    torch._dynamo.reset()
    counters.clear()
    compiled, ordinary = TrainingStep(kind, device), TrainingStep(kind, device)
    options = {"mode": "reduce-overhead"} if device.type == "cuda" else {"backend": "aot_eager"}
    fast = torch.compile(compiled.loss, fullgraph=True, **options)
    steps = 6 if device.type == "cuda" else 3
    for step in range(steps):
        for training, loss in ((compiled, fast), (ordinary, ordinary.loss)):
            if device.type == "cuda":
                torch.compiler.cudagraph_mark_step_begin()
            training.optimizer.zero_grad()
            loss().backward()
            training.optimizer.step()
            if step == steps // 2:
                training.criterion.constraints[0].kappa = 0.15
    synchronize(device)
    assert counters["inductor"]["cudagraph_skips"] == 0
    assert int(compiled.criterion.steps) == steps
    for a, b in zip(compiled.state(), ordinary.state(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)


def test_the_compiler_takes_the_state_for_static(device, backend):
    """Graphs may mutate what keeps its address; anything else would be copied, or no graph made."""
    step, kinds = TrainingStep("errors", device), {}

    def look(graph_module, inputs):
        for node in graph_module.graph.nodes:
            if node.op == "placeholder" and node.meta["example_value"].dtype == torch.float64:
                kinds[node.name] = node.meta["tensor_dict"].get("_dynamo_static_input_type")
        return graph_module.forward

    torch._dynamo.reset()
    torch.compile(step.loss, fullgraph=True, backend=look)()
    assert kinds
    assert None not in kinds.values()

"""The fused kernels of models on a GPU: in graphs, on several streams, in one launch each way, beyond 32-bit offsets.
What they compute is tested with all backends (test_model_kernels.py)."""

import pytest
import torch
from model_operators import KERNELS, inputs_of
from on_device import assert_same, captured, launches, never_waiting, streams, synchronize

from geco_ext import functional as gf

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(params=KERNELS)
def kernel(request):
    return request.param


class Step:
    """Forward and backward; ``results`` are outputs and gradients."""

    def __init__(self, kernel, shape, device, dtype=torch.float32):
        self.function = KERNELS[kernel][0]
        self.inputs = inputs_of(kernel, shape, dtype, device)
        self.wanted = self.inputs[:-1] if kernel.endswith("gaussian") else self.inputs  # the last is noise
        for tensor in self.wanted:
            tensor.requires_grad_()
        self.forward()
        self.weights = [torch.ones_like(output) for output in self.outputs]

    def forward(self):
        # Outputs keep the graph behind them, and that the nodes of the inputs with the stream they were made on: a
        # backward pass on another stream makes that one wait, which a capture refuses. So does every copy of outputs.
        self.outputs = None
        self.outputs = self.function(*self.inputs)

    def backward(self):
        self.gradients = torch.autograd.grad(self.outputs, self.wanted, self.weights, retain_graph=True)

    def __call__(self):
        self.forward()
        self.backward()

    def results(self):
        return [*(output.detach() for output in self.outputs), *self.gradients]


def shapes(device):
    """Many small examples, feature maps, and few examples that several blocks share."""
    return [(300, 32), (16, 8, 16, 16), (2, 1 << 20)] if device.type == "cuda" else [(3, 8), (2, 2, 3, 3)]


def test_a_captured_call_replays_as_it_runs(backend, device, kernel):
    for shape in shapes(device):
        step = Step(kernel, shape, device)
        step()
        expected = [tensor.clone() for tensor in step.results()]
        replay = captured(step, device, warm_up=2)
        for _ in range(3):
            for tensor in (*step.outputs, step.gradients[0]):
                tensor.detach().zero_()
            replay()
        synchronize(device)
        assert_same(step.results(), expected)


def test_a_replay_sees_new_inputs(backend, device, kernel):
    for shape in shapes(device):
        step, other = Step(kernel, shape, device), Step(kernel, shape, device)
        replay = captured(step, device, warm_up=2)
        with torch.no_grad():
            for tensor, value in zip(step.inputs, other.inputs, strict=True):
                tensor.copy_(value)
        replay()
        other()
        synchronize(device)
        assert_same(step.results(), other.results())


def test_two_streams_at_once(backend, device, kernel):
    """Calls whose blocks count how many of them are done do not count those of each other."""
    shape = shapes(device)[-1]
    alone = [Step(kernel, shape, device) for _ in range(2)]
    for step in alone:
        step()
    expected = [[tensor.clone() for tensor in step.results()] for step in alone]
    places = streams(device, 2)
    for _ in range(10):
        for step, place in zip(alone, places, strict=True):
            with place:
                step()
        synchronize(device)
        for step, values in zip(alone, expected, strict=True):
            assert_same(step.results(), values)


def test_a_call_waits_for_nothing(backend, device, kernel):
    for shape in shapes(device):
        step = Step(kernel, shape, device)
        step()
        with never_waiting(device):
            step()


def test_one_kernel_forward_one_backward(backend, device, kernel):
    """Of the inverse, PyTorch negates a gradient for the other."""
    step = Step(kernel, shapes(device)[1], device)
    step()
    forward_names, backward_names = launches(step.forward), launches(step.backward)
    if device.type == "cuda" and not forward_names:
        pytest.skip("the profiler sees no kernels here")
    if backend in ("cuda", "triton") and device.type == "cuda":
        assert len(forward_names) == 1, forward_names
        assert len(backward_names) == (2 if kernel == "inverse coupling" else 1), backward_names


@gpu
@pytest.mark.large_memory
@pytest.mark.parametrize("shape", [(1, (1 << 31) + 64), ((1 << 15) + 1, 1 << 16)], ids=["numbers", "examples"])
def test_offsets_beyond_32_bits(backend, device, shape):
    """In an example of more than 2^31 numbers, and with more than that in all."""
    if device.type != "cuda" or backend == "reference":
        pytest.skip("for the kernels of GPUs")
    if torch.cuda.mem_get_info(device)[0] < 40 << 30:
        pytest.skip("needs 40 GB")
    x = torch.zeros(shape, dtype=torch.bfloat16, device=device)
    log_scale = torch.zeros_like(x)
    places = [0, shape[1] // 2, shape[1] - 1]
    for place in places:
        x[-1, place] = 3
        log_scale[-1, place] = 1
    y, log_det = gf.affine_coupling(x, log_scale.requires_grad_(), x)
    (gradient,) = torch.autograd.grad(y, [log_scale], torch.ones_like(y))
    scaled = 3 * torch.tensor(1.0).exp()
    for place in places:
        assert float(y[-1, place]) == pytest.approx(float(scaled) + 3, rel=1e-2)
        assert float(gradient[-1, place]) == pytest.approx(float(scaled), rel=1e-2)
    assert log_det.tolist()[-1] == 3
    assert torch.count_nonzero(y[-1]) == torch.count_nonzero(gradient[-1]) == 3

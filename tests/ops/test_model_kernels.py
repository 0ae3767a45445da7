"""The fused kernels of models on every backend, against float64."""

import pytest
import torch
from model_operators import (
    KERNELS,
    SHAPES,
    assert_close,
    exact,
    inputs_of,
    outputs_and_gradients,
    weights_for,
)

import geco_ext
from geco_ext import functional as gf

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.fixture(params=KERNELS)
def kernel(request):
    return request.param


def check(kernel, inputs, dtype=torch.float32, weights=None):
    device = inputs[0].device
    outputs = KERNELS[kernel][0](*inputs)
    weights = weights or [torch.randn(o.shape, dtype=torch.float64).to(device, o.dtype) for o in outputs]
    got = outputs_and_gradients(KERNELS[kernel][0], inputs, weights)
    assert_close(got, exact(kernel, inputs, weights), dtype)
    return got


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_float64(backend, device, kernel, shape):
    check(kernel, inputs_of(kernel, shape, device=device))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_types(backend, device, kernel, dtype):
    outputs = check(kernel, inputs_of(kernel, (3, 5, 4, 4), dtype, device), dtype)
    assert all(gradient.dtype == dtype for gradient in outputs[2:])
    assert outputs[0].dtype == dtype
    if kernel != "gates":
        assert outputs[1].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_half_types_round_once(backend, device, kernel):
    inputs = inputs_of(kernel, (3, 40), torch.bfloat16, device)
    halves = KERNELS[kernel][0](*inputs)
    floats = KERNELS[kernel][0](*[tensor.float() for tensor in inputs])
    for half, value in zip(halves, floats, strict=True):
        if half.dtype == torch.bfloat16:
            # The last bit of float32 may decide a tie.
            wrong = half != value.to(half.dtype)
            assert wrong.float().mean() < 0.02
        # Sums are float32 either way, of the same numbers. Their last bit depends on how many a vector holds.
        assert_close([half], [value.cpu()], half.dtype)


LAYOUTS = {
    "channels_last": lambda tensor: tensor.contiguous(memory_format=torch.channels_last),
    "chunk": lambda tensor: torch.cat([tensor, tensor + 1], 1).chunk(2, dim=1)[0],
    "chunk of channels_last": lambda tensor: LAYOUTS["channels_last"](torch.cat([tensor, tensor], 1)).chunk(2, dim=1)[
        1
    ],
    "transposed": lambda tensor: tensor.transpose(2, 3).contiguous().transpose(2, 3),
    "expanded": lambda tensor: tensor[:1].expand_as(tensor),
    "every second": lambda tensor: tensor.repeat_interleave(2, dim=3)[..., ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("which", ["all", "first", "last"])
def test_any_layout(backend, device, kernel, layout, which):
    inputs = inputs_of(kernel, (3, 6, 5, 4), device=device)
    for k in {"all": range(len(inputs)), "first": [0], "last": [-1]}[which]:
        inputs[k] = LAYOUTS[layout](inputs[k])
    outputs = check(kernel, inputs)
    assert outputs[0].is_contiguous() or outputs[0].is_contiguous(memory_format=torch.channels_last)
    if layout == "channels_last" and which == "all":
        assert outputs[0].is_contiguous(memory_format=torch.channels_last)
        assert outputs[2].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("with_prior", [True, False])
def test_kl_is_that_of_torch_distributions(backend, device, with_prior):
    q_mean, q_log_std, p_mean, p_log_std, _ = inputs_of("gaussian", (4, 30), device=device)
    prior = (p_mean, p_log_std) if with_prior else (torch.zeros_like(p_mean), torch.zeros_like(p_mean))
    q, p = (
        torch.distributions.Normal(m.cpu().double(), s.cpu().double().exp()) for m, s in ((q_mean, q_log_std), prior)
    )
    _, kl = gf.gaussian_rsample_kl(q_mean, q_log_std, *prior if with_prior else ())
    torch.testing.assert_close(kl.cpu().double(), torch.distributions.kl_divergence(q, p).sum(1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("q", [-30.0, 0.0, 30.0])
@pytest.mark.parametrize("p", [-30.0, 0.0, 30.0])
def test_extreme_log_scales_of_a_gaussian(backend, device, p, q):
    inputs = inputs_of("gaussian", (2, 9), torch.float64, device)
    inputs[1], inputs[3] = torch.full_like(inputs[1], q), torch.full_like(inputs[3], p)
    check("gaussian", inputs, torch.float64)
    if q - p <= 30:  # exp(120) is beyond float32
        floats = [tensor.float() for tensor in inputs]
        got = check("gaussian", floats)
        assert all(tensor.isfinite().all() for tensor in got)


@pytest.mark.parametrize("log_scale", [-30.0, 30.0])
@pytest.mark.parametrize("name", ["coupling", "inverse coupling"])
def test_extreme_log_scales_of_a_coupling(backend, device, name, log_scale):
    inputs = inputs_of(name, (2, 9), device=device)
    inputs[1] = torch.full_like(inputs[1], log_scale)
    assert all(tensor.isfinite().all() for tensor in check(name, inputs))


def test_saturated_gates(backend, device):
    values = torch.tensor([-100.0, -20.0, -1e-4, 0.0, 1e-6, 20.0, 100.0])
    combinations = torch.cartesian_prod(values, values, values, values)  # [2401, 4]
    cell = torch.tensor([-100.0, 1e-5, 3.0]).repeat(801)[: len(combinations), None]
    got = check("gates", [combinations.to(device), cell.to(device)])
    assert all(tensor.isfinite().all() for tensor in got)


def test_small_values_keep_their_relative_accuracy(backend, device):
    """tanh and expm1 of small numbers by a formula that cancels would lose digits."""
    small = torch.tensor([1e-3, 1e-5, 1e-7])
    gates = torch.stack([torch.full((3,), 40.0), torch.full((3,), -40.0), small, torch.full((3,), 40.0)], 1)
    hidden, cell = gf.lstm_gates(gates.to(device), torch.zeros(3, 1, device=device))
    torch.testing.assert_close(cell.cpu().flatten(), small, rtol=1e-6, atol=0)
    torch.testing.assert_close(hidden.cpu().flatten(), small, rtol=1e-6, atol=0)
    log_std = small[:, None].to(device)
    kl = gf.gaussian_rsample_kl(torch.zeros_like(log_std), log_std)[1]
    exact = 0.5 * (torch.expm1(2 * small.double()) - 2 * small.double())
    torch.testing.assert_close(kl.cpu().double()[:1], exact[:1], rtol=1e-3, atol=0)
    assert (kl >= 0).all()


def test_kl_of_equal_gaussians_is_zero(backend, device):
    mean, log_std = torch.randn(3, 50, device=device), torch.randn(3, 50, device=device)
    _, kl = gf.gaussian_rsample_kl(mean, log_std, mean.clone(), log_std.clone())
    assert (kl == 0).all()


def test_gradcheck(backend, device, kernel, slow):
    shape = (2, 1, 2, 1) if slow else (2, 3, 2, 2)
    inputs = [t.requires_grad_() for t in inputs_of(kernel, shape, torch.float64, device)]
    assert torch.autograd.gradcheck(KERNELS[kernel][0], inputs)


@pytest.mark.parametrize("output", [0, 1])
def test_one_output_alone(backend, device, kernel, output):
    """The gradient of the other is then None, not a tensor of zeros."""
    inputs = inputs_of(kernel, (3, 6), device=device)
    weights = weights_for(kernel, (3, 6), device)

    def alone(function):
        def call(*inputs):
            return (function(*inputs)[output],)

        return call

    ours = [tensor.requires_grad_() for tensor in inputs]
    value = (alone(KERNELS[kernel][0])(*ours)[0] * weights[output]).sum()
    got = torch.autograd.grad(value, ours, allow_unused=True)
    theirs = [tensor.detach().cpu().double().requires_grad_() for tensor in inputs]
    value = (alone(KERNELS[kernel][1])(*theirs)[0] * weights[output].cpu()).sum()
    expected = torch.autograd.grad(value, theirs, allow_unused=True)
    zeros = [torch.zeros_like(tensor) for tensor in theirs]
    assert_close(
        [z if a is None else a for a, z in zip(got, zeros, strict=True)],
        [z if b is None else b for b, z in zip(expected, zeros, strict=True)],
        torch.float32,
    )


def test_nan_goes_through(backend, device, kernel):
    """In the example and place where it is; other examples do not see it."""
    for k in range(len(KERNELS[kernel][2])):
        inputs = inputs_of(kernel, (2, 20), device=device)
        inputs[k][0, 3] = torch.nan
        outputs = KERNELS[kernel][0](*inputs)
        assert any(output[0].isnan().any() for output in outputs)
        assert all(output[1].isfinite().all() for output in outputs)


def test_negated_views(backend, device, kernel):
    """Their sign is no part of the memory."""
    inputs = [tensor.to(torch.complex64).mul(1j).conj().imag for tensor in inputs_of(kernel, (2, 20), device=device)]
    assert all(tensor.is_neg() for tensor in inputs)
    check(kernel, inputs)


def test_same_bits_every_time(backend, device, kernel):
    inputs = inputs_of(kernel, (2, 9000), device=device)
    first, second = (KERNELS[kernel][0](*inputs) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_backward_twice(backend, device, kernel):
    inputs = [tensor.requires_grad_() for tensor in inputs_of(kernel, (3, 8), device=device)]
    total = sum(output.sum() for output in KERNELS[kernel][0](*inputs))
    first = torch.autograd.grad(total, inputs, retain_graph=True)
    second = torch.autograd.grad(total, inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_no_second_derivative(backend, device, kernel):
    inputs = [tensor.requires_grad_() for tensor in inputs_of(kernel, (3, 8), device=device)]
    total = sum(output.square().sum() for output in KERNELS[kernel][0](*inputs))
    (gradient, *_) = torch.autograd.grad(total, inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()


def test_mixed_types_are_promoted(backend, device):
    gates, cell = torch.randn(2, 8, device=device).bfloat16(), torch.randn(2, 2, device=device)
    hidden, new_cell = gf.lstm_gates(gates, cell)
    assert hidden.dtype == new_cell.dtype == torch.float32
    assert torch.equal(new_cell, gf.lstm_gates(gates.float(), cell)[1])


def test_noise_is_drawn_by_torch(backend, device):
    mean, log_std = torch.randn(2, 6, device=device), torch.randn(2, 6, device=device)
    torch.manual_seed(5)
    z, _ = gf.gaussian_rsample_kl(mean, log_std)
    torch.manual_seed(5)
    expected, _ = gf.gaussian_rsample_kl(mean, log_std, noise=torch.randn_like(mean))
    assert torch.equal(z, expected)


def test_opcheck(backend, device, kernel):
    for shape in ((2, 3), (2, 3, 4, 5)):
        inputs = inputs_of(kernel, shape, device=device)
        for arranged in (inputs, [LAYOUTS["channels_last"](t) for t in inputs] if len(shape) == 4 else inputs):
            for name, arguments in declared_calls(kernel, arranged):
                torch.library.opcheck(getattr(torch.ops.geco_ext, name).default, arguments)


def declared_calls(kernel, inputs):
    grad, sums = torch.randn_like(inputs[-1]), torch.randn(len(inputs[0]), device=inputs[0].device)
    if "gaussian" in kernel:
        whole = tuple(inputs) if kernel == "gaussian" else (*inputs[:2], None, None, inputs[2])
        yield "gaussian_rsample_kl", whole
        yield "gaussian_rsample_kl_backward", (grad, sums, *whole)
        yield "gaussian_rsample_kl_backward", (None, sums, *whole)
    elif kernel == "gates":
        yield "lstm_gates", tuple(inputs)
        yield "lstm_gates_backward", (grad, None, *inputs)
    else:
        inverse = kernel.startswith("inverse")
        yield "affine_coupling", (*inputs, inverse)
        yield "affine_coupling_backward", (grad, sums, *inputs[:2], inverse)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_compiles_without_a_break(backend, device, kernel, layout):
    inputs = inputs_of(kernel, (2, 3, 4, 4), device=device)
    if layout != "contiguous":
        inputs = [LAYOUTS[layout](tensor) for tensor in inputs]
    weights = weights_for(kernel, (2, 3, 4, 4), device)
    torch._dynamo.reset()
    compiled = torch.compile(KERNELS[kernel][0], fullgraph=True, backend="aot_eager")
    got = outputs_and_gradients(compiled, inputs, weights)
    expected = outputs_and_gradients(KERNELS[kernel][0], inputs, weights)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert all(a.stride() == b.stride() for a, b in zip(got[:2], expected[:2], strict=True))


ERRORS = [
    (
        lambda x: gf.gaussian_rsample_kl(x, x[:, :2]),
        ValueError,
        r"q_mean and q_log_std: got shapes \(2, 4\) and \(2, 2\)",
    ),
    (lambda x: gf.gaussian_rsample_kl(x, x, x), ValueError, "p_log_std: got None, expected a tensor beside p_mean"),
    (lambda x: gf.gaussian_rsample_kl(x, x, noise=x[:1]), ValueError, "q_mean and noise: got shapes"),
    (lambda x: gf.gaussian_rsample_kl(x.long(), x), TypeError, "q_mean: got dtype torch.int64"),
    (lambda x: gf.gaussian_rsample_kl(None, x), TypeError, "q_mean: got NoneType"),
    (lambda x: gf.lstm_gates(x, x), ValueError, r"gates and cell: got shapes \(2, 4\) and \(2, 4\), expected \[B, 4 H"),
    (lambda x: gf.lstm_gates(x[:, 0], x[:, 0]), ValueError, "gates and cell: got shapes"),
    (lambda x: gf.lstm_gates(x, x[:1, :1]), ValueError, "gates and cell: got shapes"),
    (lambda x: gf.lstm_gates(x, x.to("meta")[:, :1]), ValueError, "got devices .* expected the same device"),
    (lambda x: gf.affine_coupling(x, x, x[0]), ValueError, "x and shift: got shapes"),
    (lambda x: gf.affine_coupling(x[0, 0], x, x), ValueError, r"x: got a number, expected a tensor \[B, ...\]"),
    (lambda x: gf.affine_coupling(x, 1.0, x), TypeError, "log_scale: got float, expected a tensor"),
]


@pytest.mark.parametrize("case", range(len(ERRORS)))
def test_bad_input(case):
    call, error, message = ERRORS[case]
    with pytest.raises(error, match=message):
        call(torch.randn(2, 4))


def test_a_backend_that_cannot_serve_is_an_error():
    if "cpu" not in geco_ext.available_backends():
        pytest.skip("the C++ kernels are not built")
    with (
        geco_ext.use_backend("cpu"),
        pytest.raises(RuntimeError, match="backend 'cpu' cannot serve this call: it takes float16"),
    ):
        gf.lstm_gates(*(torch.ones(1, size).to(torch.float8_e4m3fn) for size in (4, 1)))


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_couplings_are_plain_operators_of_the_same_numbers(monkeypatch, inverse, dtype):
    """On the CPU, where no backend is asked for: a Function costs more than its kernel saves."""
    monkeypatch.delenv("GECO_EXT_BACKEND", raising=False)
    kernel = "inverse coupling" if inverse else "coupling"
    limit = 1 << (14 if inverse else 16)
    for numbers, plain in ((limit, True), (limit + 2, False)):
        inputs = inputs_of(kernel, (2, numbers // 2), dtype)
        y, _ = gf.affine_coupling(*[t.requires_grad_() for t in inputs], inverse=inverse)
        assert ("AffineCoupling" not in type(y.grad_fn).__name__) == plain
        check(kernel, [t.detach() for t in inputs], dtype)
    with geco_ext.use_backend("reference"):
        y, _ = gf.affine_coupling(*[t.requires_grad_() for t in inputs_of(kernel, (2, 3), dtype)], inverse=inverse)
    assert "AffineCoupling" in type(y.grad_fn).__name__

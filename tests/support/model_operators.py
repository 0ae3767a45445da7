"""What the tests of the model kernels share: their cases, and the float64 formulas under PyTorch's own autograd."""

import torch

from geco_ext import functional as gf


def gaussian(q_mean, q_log_std, p_mean, p_log_std, noise):
    if p_mean is None:
        p_mean = p_log_std = torch.zeros_like(q_mean)
    log_ratio, distance = q_log_std - p_log_std, (q_mean - p_mean) * (-p_log_std).exp()
    # As torch.distributions has it, but for the cancellation where both are nearly the same.
    kl = 0.5 * (torch.expm1(2 * log_ratio) - 2 * log_ratio + distance.square())
    return q_mean + q_log_std.exp() * noise, kl.flatten(1).sum(1)


def gates(gates, cell):
    i, f, g, o = gates.chunk(4, dim=1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def coupling(x, log_scale, shift):
    return x * log_scale.exp() + shift, log_scale.flatten(1).sum(1)


def inverse_coupling(x, log_scale, shift):
    return (x - shift) * (-log_scale).exp(), -log_scale.flatten(1).sum(1)


# name: (ours, theirs, how many channels each input has in multiples of the shape's)
KERNELS = {
    "gaussian": (gf.gaussian_rsample_kl, gaussian, (1, 1, 1, 1, 1)),
    "standard gaussian": (
        lambda mean, log_std, noise: gf.gaussian_rsample_kl(mean, log_std, noise=noise),
        lambda mean, log_std, noise: gaussian(mean, log_std, None, None, noise),
        (1, 1, 1),
    ),
    "gates": (gf.lstm_gates, gates, (4, 1)),
    "coupling": (gf.affine_coupling, coupling, (1, 1, 1)),
    "inverse coupling": (lambda *inputs: gf.affine_coupling(*inputs, inverse=True), inverse_coupling, (1, 1, 1)),
}

# Latents of a small VAE, rows that no vector divides, feature maps, one number, many examples.
SHAPES = [(3, 24), (5, 7), (2, 3, 5, 3), (4, 16, 4, 4), (1, 1), (2, 1, 1, 1), (130, 2), (2, 3, 33), (1, 5000), (3, 0)]


def inputs_of(kernel, shape, dtype=torch.float32, device="cpu", scale=1.0):
    """Normal numbers; those that are logarithms are half as far from zero."""
    inputs = []
    for k, channels in enumerate(KERNELS[kernel][2]):
        numbers = scale * torch.randn(shape[0], channels * shape[1], *shape[2:], dtype=torch.float64)
        inputs.append((numbers / (1 + k % 2)).to(device, dtype))
    return inputs


def outputs_and_gradients(function, inputs, weights):
    """Both outputs, and the gradients of their sum weighted by two tensors."""
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    outputs = function(*inputs)
    total = sum((output * weight.to(output.dtype)).sum() for output, weight in zip(outputs, weights, strict=True))
    return [*outputs, *torch.autograd.grad(total, inputs)]


def exact(kernel, inputs, weights):
    """The same in float64 by PyTorch's own autograd, on the CPU."""
    doubles = [tensor.detach().cpu().double() for tensor in inputs]
    return outputs_and_gradients(KERNELS[kernel][1], doubles, [weight.cpu().double() for weight in weights])


def weights_for(kernel, shape, device="cpu", dtype=torch.float32):
    outputs = KERNELS[kernel][0](*inputs_of(kernel, shape, dtype, device))
    return [torch.randn(output.shape, dtype=torch.float64).to(device, output.dtype) for output in outputs]


def assert_close(got, expected, dtype, largest=None):
    """To the accuracy of a type, relative to the largest number of the tensor."""
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    for k, (a, b) in enumerate(zip(got, expected, strict=True)):
        a, b = a.detach().cpu().double(), b.detach().double()
        assert a.shape == b.shape, k
        if b.numel():
            scale = b[b.isfinite()].abs().max() if b.isfinite().any() else torch.tensor(1.0)
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance * float(scale.clamp(min=1e-30)), msg=f"result {k}")

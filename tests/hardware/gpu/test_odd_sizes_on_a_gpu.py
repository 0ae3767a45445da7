"""Tensors that vectors of 16 bytes do not fit: bases off their grid, sizes around their multiples, crops, operands of
different layouts; very many examples, and more elements than 32 bits count. Against float64 on the CPU."""

import oracle
import pytest
import torch
from model_operators import KERNELS, assert_close, exact, inputs_of, outputs_and_gradients, weights_for

from geco_ext import functional as gf

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
GRADIENT = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def off_grid(tensor, elements):
    """A copy whose first element lies so many elements from where an allocation starts."""
    moved = torch.empty(tensor.numel() + elements, dtype=tensor.dtype, device=tensor.device)[elements:]
    moved = moved.view(tensor.shape).copy_(tensor)
    assert moved.data_ptr() % 16 == elements * tensor.element_size() % 16
    return moved


def assert_equals_the_oracle(x_hat, x):
    """With its gradient and without."""
    x_hat = x_hat.detach().requires_grad_()
    y_hat, y = x_hat.detach().cpu().double().requires_grad_(), x.cpu().double()
    expected = oracle.squared_error(y_hat, y, 0.1, "sum")
    value, alone = (gf.reconstruction_error(a, x, kappa=0.1, reduction="sum") for a in (x_hat, x_hat.detach()))
    (gradient,) = torch.autograd.grad(value, x_hat)
    (of_expected,) = torch.autograd.grad(expected, y_hat)
    for number in (value, alone):
        assert float(number) == pytest.approx(float(expected), rel=1e-12 if x_hat.dtype == torch.float64 else 1e-6)
    assert (gradient.cpu().double() - of_expected).norm() <= GRADIENT[x_hat.dtype] * of_expected.norm()


@pytest.mark.parametrize("dtype", FLOATS)
def test_bases_off_the_grid(backend, device, slow, dtype):
    """Each alone, and all equally far."""
    shape = (2, 3, 5, 7) if slow else (4, 3, 65, 67)
    x_hat, x = torch.rand(shape, device=device).to(dtype), torch.rand(shape, device=device).to(dtype)
    for of_prediction, of_target in [(0, 1), (1, 0), (1, 1), (3, 3), (2, 1)]:
        assert_equals_the_oracle(off_grid(x_hat, of_prediction), off_grid(x, of_target))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_crops(backend, device, slow, dtype):
    """Of the target, of both, with rows that begin on the grid and rows that do not."""
    shape = (2, 3, 6, 8) if slow else (4, 3, 128, 160)
    height, width = shape[2:]
    frame = torch.rand(*shape[:2], height + 9, width + 16, device=device).to(dtype)
    x_hat = torch.rand(shape, device=device).to(dtype)
    for top, left in [(0, 0), (3, 5), (9, 8)]:
        crop = frame[:, :, top : top + height, left : left + width]
        assert_equals_the_oracle(x_hat, crop)
        assert_equals_the_oracle(frame.flip(3)[:, :, top : top + height, left : left + width], crop)
        assert_equals_the_oracle(x_hat.contiguous(memory_format=torch.channels_last), crop)


@pytest.mark.parametrize("shape", [(2, 3, 6, 5), (2, 9, 3, 4), (3, 70, 2, 2), (8, 3, 128, 96), (4, 256, 14, 14)])
@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float32), (torch.bfloat16, torch.float32)])
def test_channels_last_beside_contiguous(backend, device, slow, shape, dtypes):
    if slow and shape[0] > 3:
        pytest.skip("on smaller images")
    x_hat, x = (torch.rand(shape, device=device).to(dtype) for dtype in dtypes)
    for one, other in [(x_hat, x), (x, x_hat)]:
        assert_equals_the_oracle(one.contiguous(memory_format=torch.channels_last), other)
        assert_equals_the_oracle(one, other.contiguous(memory_format=torch.channels_last))


def test_sizes_around_multiples_of_vectors_and_blocks(backend, device, slow):
    sizes = [1, 3, 4, 5, 8, 9]
    if not slow:
        sizes += [size + more for size in (256, 1024, 4096, 8192, 1 << 20) for more in (-1, 0, 1)]
    for size in sizes:
        x_hat, x = torch.rand(1, size, device=device), torch.rand(1, size, device=device)
        assert_equals_the_oracle(x_hat, x)
        assert_equals_the_oracle(x_hat, off_grid(x, 1))
        assert_equals_the_oracle(off_grid(x_hat, 1), off_grid(x, 1))


def many(slow):
    """More than a grid's second dimension counts."""
    return 130 if slow else 70001


def test_many_examples(backend, device, slow):
    x_hat, x = torch.rand(many(slow), 3, device=device), torch.rand(many(slow), 3, device=device)
    assert_equals_the_oracle(x_hat, x)
    scores, labels = torch.randn(many(slow), 3), torch.randint(0, 3, (many(slow),))
    value = gf.classification_accuracy(scores.to(device), labels.to(device), kappa=0.9)
    assert float(value) == pytest.approx(float(oracle.class_probability(scores.double(), labels, 0.9)), abs=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_model_kernels_off_the_grid(backend, device, slow, kernel, dtype):
    """Outputs and gradients lie on it: operands are never all equally far off."""
    for shape in [(3, 8), (2, 4, 3, 5)] if slow else [(300, 32), (16, 8, 16, 16), (2, 40000)]:
        inputs = [off_grid(tensor, 1 + k % 3) for k, tensor in enumerate(inputs_of(kernel, shape, dtype, device))]
        weights = weights_for(kernel, shape, device, dtype)
        got = outputs_and_gradients(KERNELS[kernel][0], inputs, weights)
        assert_close(got, exact(kernel, inputs, weights), dtype)


@pytest.mark.parametrize("kernel", KERNELS)
def test_model_kernels_on_many_examples(backend, device, slow, kernel):
    for width in (2, 4):
        inputs = inputs_of(kernel, (many(slow), width), torch.float32, device)
        weights = weights_for(kernel, (many(slow), width), device)
        got = outputs_and_gradients(KERNELS[kernel][0], inputs, weights)
        assert_close(got, exact(kernel, inputs, weights), torch.float32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("case", ["vectors", "off the grid", "transposed"])
def test_more_elements_than_32_bits_count(backend, device, case):
    """Only a few of them are not zero: an error in an offset shows in the value and in the gradient."""
    if device.type != "cuda" or backend == "reference":
        pytest.skip("for the kernels of GPUs")
    if torch.cuda.mem_get_info(device)[0] < 40 << 30:
        pytest.skip("needs 40 GB")
    shape = (5, 3, 12000, 12001) if case == "transposed" else (1, (1 << 31) + 9)
    layout = torch.channels_last if case == "transposed" else torch.contiguous_format
    x_hat = torch.zeros(shape, dtype=torch.bfloat16, device=device).contiguous(memory_format=layout)
    x = torch.zeros(x_hat.numel() + 1, dtype=torch.bfloat16, device=device)
    x = x[1 if case == "off the grid" else 0 :][: x_hat.numel()].view(shape)
    middle = tuple(size // 2 for size in shape)
    last = tuple(size - 1 for size in shape)
    places = [tuple(0 for _ in shape), middle, last]
    for k, place in enumerate(places):
        x_hat[place] = k + 1
        x[place] = -(k + 1)
    x_hat.requires_grad_()
    value = gf.reconstruction_error(x_hat, x, kappa=0.0, reduction="sum")
    (gradient,) = torch.autograd.grad(value, x_hat)
    assert float(value) == pytest.approx(4 * (1 + 4 + 9) / shape[0], rel=1e-6)
    for k, place in enumerate(places):
        assert float(gradient[place]) == pytest.approx(4 * (k + 1) / shape[0], rel=1e-2)
    assert int(torch.count_nonzero(gradient)) == len(places)

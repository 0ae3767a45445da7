"""Constraints that compare number by number, every kind on every backend: what a measure has to satisfy
(csrc/math/elementwise.h), the oracle's values and gradients, alone and beside patches."""

import elementwise
import oracle
import pytest
import torch
from comparison import FLOATS, GRADIENT, assert_close, doubled, images
from elementwise import ROWS, Member

import geco_ext
from geco_ext.contract import KINDS, Term


def test_the_table_has_every_kind():
    assert [row.kind for row in elementwise.TABLE] == [kind for kind in KINDS if Term(kind).is_elementwise]
    for row in elementwise.TABLE:
        assert row.constraint(0.1)._term().kind == row.kind
        terms = [row.constraint(0.1, **settings)._term() for settings in (*row.settings, *row.extremes)]
        assert terms[0] == row.constraint(0.1)._term()
        assert len(set(terms)) == len(terms)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("row", ROWS)
def test_value_and_gradient_equal_the_oracle(backend, device, row, dtype, layout):
    x_hat, x = images(dtype=dtype, device=device, layout=layout)
    y_hat, y = doubled(x_hat, x)
    for settings in row.settings:
        value = row.function(x_hat, x, kappa=0.1, **settings)
        assert_close(value, x_hat, row.expected(y_hat, y, 0.1, **settings), y_hat)


@pytest.mark.parametrize("shape", [(5, 3), (4,), (2, 3, 4, 5, 6), (7, 1, 1, 1), (2, 3, 33, 65), (1, 3, 301, 97)])
@pytest.mark.parametrize("row", ROWS)
def test_any_shape(backend, device, row, shape):
    x_hat, x = images(shape, device=device)
    y_hat, y = doubled(x_hat, x)
    value = row.function(x_hat, x, kappa=0.1, reduction="sum")
    expected = row.expected(y_hat, y, 0.1, "sum")
    assert_close(value, x_hat, expected, y_hat, value_tolerance=1e-6 * max(1.0, expected.item()))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("row", ROWS)
def test_identical_images_measure_exactly_nothing(backend, device, row, dtype):
    x_hat, _ = images((2, 3, 9, 11), dtype, device)
    for settings in (*row.settings, *row.extremes):
        value = row.function(x_hat, x_hat.detach(), kappa=0.25, **settings)
        (gradient,) = torch.autograd.grad(value, x_hat)
        assert float(value) == -row.scale(0.25)
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("row", ROWS)
def test_symmetric_in_both_images(backend, device, row):
    """The same value, and gradients of opposite sign: what a target gets that wants one."""
    x_hat, x = images(device=device)
    x.requires_grad_()
    for settings in row.settings:
        value, swapped = (row.function(*pair, kappa=0.1, **settings) for pair in ((x_hat, x), (x, x_hat)))
        (by_x_hat,) = torch.autograd.grad(value, x_hat)
        (by_x,) = torch.autograd.grad(swapped, x)
        assert torch.equal(value, swapped)
        assert torch.equal(by_x_hat, -by_x)
        assert by_x_hat.count_nonzero() == by_x_hat.numel()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("row", ROWS)
def test_what_is_not_a_number_shows(backend, device, row, dtype):
    """In the value, and at its place in the gradient: a minimum or a comparison would hide it. The first element stands
    in a vector of some, the last one in a remainder."""
    for settings in row.settings:
        for spoiled in (0, 1):
            pair = [image.detach().clone() for image in images(dtype=dtype, device=device)]
            pair[spoiled].view(-1)[[0, -1]] = torch.nan
            x_hat = pair[0].requires_grad_()
            value = row.function(x_hat, pair[1], kappa=0.1, **settings)
            (gradient,) = torch.autograd.grad(value, x_hat)
            assert value.isnan()
            assert gradient.view(-1).isnan().nonzero().view(-1).tolist() == [0, gradient.numel() - 1]


@pytest.mark.parametrize("part", range(len(elementwise.measures())))
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_beside_patches(backend, device, part, dtype, per_channel):
    """One gradient of all constraints that read the images."""
    members = [Member(row, 0.1 + 0.05 * n, settings) for n, (row, settings) in enumerate(elementwise.measures()[part])]
    if per_channel:
        members[-1] = members[-1]._replace(arguments={**members[-1].arguments, "channels": 3})
    windowed = [
        geco_ext.PatchNCC(0.9, patch_size=4, eps=1e-2),
        geco_ext.LocalStatistics(0.1, patch_size=3, stride=2, eps=1e-2),
    ]
    constraints = [*windowed, *elementwise.constraints_of(members)]
    criterion = geco_ext.GECOLoss(constraints, multiplier_init=2.0).to(device)
    x_hat, x = images((2, 3, 12, 10), dtype, device)
    loss = criterion.eval()(x_hat, x, torch.zeros(2, device=device))
    (gradient,) = torch.autograd.grad(loss, x_hat)
    y_hat, y = doubled(x_hat, x)
    expected = 2 * (
        oracle.patch_ncc(y_hat, y, 0.9, 4, eps=1e-2)
        + oracle.local_statistics(y_hat, y, 0.1, 3, 2, eps=1e-2)
        + sum(member.expected(y_hat, y).sum() for member in members)
    )
    (wanted,) = torch.autograd.grad(expected, y_hat)
    assert float(loss) == pytest.approx(float(expected), abs=2e-5)
    assert (gradient.double().cpu() - wanted).norm() <= GRADIENT.get(dtype, 1e-5) * wanted.norm()

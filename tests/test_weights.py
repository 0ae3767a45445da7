"""Weights of elements on every backend: weighted means and sums, what a weight of zero hides, and what is refused."""

import math
import re

import elementwise
import pytest
import torch
from comparison import FLOATS, GRADIENT, VALUE, doubled, images
from elementwise import MOST_MEASURES, ROWS, SQUARED, TABLE, Member

import geco_ext
from geco_ext import GECOLoss, ReconstructionError
from geco_ext import functional as gf


def weights(shape, device="cpu", dtype=torch.float32):
    """About a third are zero; the second example has none at all."""
    weight = torch.rand(shape, dtype=torch.float64)
    weight = torch.where(weight < 0.3, 0.0, 3 * weight)
    if shape[0] > 2:
        weight[1] = 0
    return (weight > 0).to(device) if dtype == torch.bool else weight.to(device=device, dtype=dtype)


def of_all_channels(shape):
    return (shape[0], 1, *shape[2:])


def assert_as_the_oracle(value, x_hat, expected, y_hat):
    (gradient,) = torch.autograd.grad(value.sum(), x_hat)
    (wanted,) = torch.autograd.grad(expected.sum(), y_hat, retain_graph=True)
    assert value.dtype == (torch.float64 if x_hat.dtype == torch.float64 else torch.float32)
    size = max(1.0, expected.detach().abs().max().item())
    assert torch.allclose(value.double().cpu(), expected, rtol=0, atol=size * VALUE.get(x_hat.dtype, 1e-6))
    assert (gradient.double().cpu() - wanted).norm() <= GRADIENT.get(x_hat.dtype, 1e-5) * wanted.norm()
    assert torch.equal(gradient[wanted.to(gradient.device) == 0].count_nonzero().cpu(), torch.tensor(0))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("row", ROWS)
def test_functions_equal_the_oracle(backend, device, row, dtype, layout):
    x_hat, x = images(dtype=dtype, device=device, layout=layout)
    y_hat, y = doubled(x_hat, x)
    weight = weights(x.shape, device)
    forms = [weight, weight[:, :1], weight.contiguous(memory_format=torch.channels_last)]
    for number in range(max(len(forms), len(row.settings))):
        w, settings = forms[number % len(forms)], row.settings[number % len(row.settings)]
        value = row.function(x_hat, x, kappa=0.1, weight=w, **settings)
        assert_as_the_oracle(value, x_hat, row.expected(y_hat, y, 0.1, weight=w.cpu(), **settings), y_hat)


@pytest.mark.parametrize("dtype", [torch.bool, *FLOATS])
@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float32), (torch.float16, torch.float32)])
def test_weights_of_any_type(backend, device, dtypes, dtype):
    x_hat, x = images(dtype=dtypes[0], device=device)
    x = x.to(dtypes[1])
    y_hat, y = doubled(x_hat, x)
    weight = weights(of_all_channels(x.shape), device, dtype)
    value = gf.reconstruction_error(x_hat, x, kappa=0.1, weight=weight)
    assert_as_the_oracle(value, x_hat, SQUARED.expected(y_hat, y, 0.1, weight=weight.cpu()), y_hat)


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4, 5, 6), (1, 3, 61, 97), (3, 2, 64, 64), (2, 1, 33, 65)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("row", ROWS)
def test_any_shape_and_reduction(backend, device, row, reduction, shape):
    x_hat, x = images(shape, device=device)
    y_hat, y = doubled(x_hat, x)
    for of_weights in (shape, of_all_channels(shape) if len(shape) > 1 else shape):
        weight = weights(of_weights, device)
        weight.view(-1)[0] = 2.0
        value = row.function(x_hat, x, kappa=0.1, reduction=reduction, weight=weight)
        assert_as_the_oracle(value, x_hat, row.expected(y_hat, y, 0.1, reduction, weight=weight.cpu()), y_hat)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("row", ROWS)
def test_each_channel_by_its_own_weights(backend, device, row, reduction, layout):
    x_hat, x = images((4, 3, 8, 8), device=device, layout=layout)
    y_hat, y = doubled(x_hat, x)
    weight = weights(x.shape, device)
    weight[2, 1] = 0  # an example that counts in two channels of three
    for w in (weight, weight[:, :1]):
        expected = row.expected(y_hat, y, 0.1, reduction, channels=3, weight=w.cpu())
        value = row.function(x_hat, x, kappa=0.1, reduction=reduction, channels=3, weight=w)
        assert_as_the_oracle(value, x_hat, expected, y_hat)
        criterion = GECOLoss([row.constraint(0.1, reduction=reduction, channels=3)], multiplier_init=1.0).to(device)
        loss = criterion(x_hat, x, torch.zeros((), device=device), weight=w)
        assert_as_the_oracle(loss, x_hat, expected.sum(), y_hat)
        assert torch.allclose(criterion.last_constraint.cpu(), expected.detach(), rtol=1e-6, atol=1e-6)


# Of all kinds: weights that are divided in one way, and in several.
MIXED = {
    f"{name} {number}": members
    for name, lists in (
        ("one division", [[Member(row, 0.2, settings) for row, settings in part] for part in elementwise.measures()]),
        ("several", elementwise.weighted_vectors(channels=2)),
    )
    for number, members in enumerate(lists)
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("members", MIXED)
def test_criteria_equal_the_oracle(backend, device, members, dtype):
    """Several constraints on the same images, training: state, loss and gradient."""
    members = MIXED[members]
    criterion = GECOLoss(elementwise.constraints_of(members), multiplier_init=2.0, alpha=0.5).to(device)
    x_hat, x = images(dtype=dtype, device=device)
    kl = torch.rand(3, device=device, requires_grad=True)
    y_hat, y = doubled(x_hat, x)
    weight = weights(x.shape, device)
    expected = torch.cat([member.expected(y_hat, y, weight.cpu()) for member in members])
    loss = criterion(x_hat, x, kl, weight=weight)
    (of_kl,) = torch.autograd.grad(loss, kl, retain_graph=True)
    assert torch.allclose(of_kl.cpu(), torch.full((3,), 1 / 3))
    assert_as_the_oracle(loss - kl.detach().mean(), x_hat, 2 * expected.sum(), y_hat)
    assert torch.allclose(criterion.last_constraint.cpu(), expected.detach(), rtol=1e-6, atol=1e-6)
    assert int(criterion.steps) == 1
    evaluated = criterion.eval()(x_hat, x, kl, weight=weight)
    multipliers = criterion.multiplier.cpu()
    assert evaluated.item() == pytest.approx(kl.mean().item() + (multipliers * expected).sum().item(), rel=1e-5)
    assert int(criterion.steps) == 1


def test_weights_of_one_change_nothing_but_the_rounding(backend, device):
    x_hat, x = images(device=device)
    kl = torch.rand(3, device=device)
    plain, weighted = (GECOLoss([row.constraint(0.2) for row in TABLE[:MOST_MEASURES]]).to(device) for _ in range(2))
    ones = torch.ones(3, 1, 9, 7, dtype=torch.bool, device=device)
    for _ in range(3):
        losses = plain(x_hat, x, kl), weighted(x_hat, x, kl, weight=ones)
        assert torch.allclose(*losses, rtol=1e-5)
    assert torch.allclose(plain.multiplier, weighted.multiplier, rtol=1e-6)  # natural ones too: D counts all elements


@pytest.mark.parametrize("hidden", [math.nan, math.inf, 1e38])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("row", ROWS)
def test_what_a_weight_of_zero_hides_does_not_matter(backend, device, row, dtype, hidden):
    x_hat, x = images((3, 2, 16, 24), dtype, device)
    weight = weights((3, 1, 16, 24), device)
    off = (weight == 0).expand_as(x)
    value = row.function(x_hat, x, kappa=0.1, weight=weight)
    (gradient,) = torch.autograd.grad(value, x_hat)
    spoiled_hat, spoiled = x_hat.detach().clone(), x.clone()
    spoiled_hat[off], spoiled[off] = hidden, -hidden
    spoiled_hat.requires_grad_()
    again = row.function(spoiled_hat, spoiled, kappa=0.1, weight=weight)
    (of_spoiled,) = torch.autograd.grad(again, spoiled_hat)
    assert torch.equal(value, again)
    assert torch.equal(gradient, of_spoiled)
    assert gradient[off].count_nonzero() == 0
    assert gradient[~off].count_nonzero() > 0


def test_a_batch_without_weights_is_skipped(backend, device):
    criterion = GECOLoss([ReconstructionError(0.1), TABLE[-1].constraint(0.1, channels=2, name="channel")]).to(device)
    x_hat, x = images(device=device)
    kl = torch.zeros((), device=device)
    criterion(x_hat, x, kl, weight=torch.ones_like(x))
    before = criterion._block.clone()
    one_channel = torch.ones_like(x)
    one_channel[:, 1] = 0  # the other one's constraint has no example
    for count, weight in enumerate((torch.zeros_like(x), one_channel), start=1):
        loss = criterion(x_hat, x, kl, weight=weight)
        assert not loss.isfinite()
        assert int(criterion.skipped) == count
        assert int(criterion.steps) == 1
    assert torch.equal(criterion.log_multiplier, before[: len(criterion.names)].view_as(criterion.log_multiplier))


def test_no_gradient_and_accumulation(backend, device):
    """Micro-batches are averaged by their examples, under no_grad as well."""
    criterion = GECOLoss([ReconstructionError(0.1)], accumulation_steps=2, multiplier_init=1.0).to(device)
    kl = torch.zeros((), device=device)
    parts = []
    with torch.no_grad():
        for batch in (3, 2):
            x_hat, x = images((batch, 2, 8, 8), device=device)
            weight = weights((batch, 1, 8, 8), device)
            criterion(x_hat, x, kl, weight=weight)
            y_hat, y = doubled(x_hat, x)
            parts.append((batch, SQUARED.expected(y_hat, y, 0.1, weight=weight.cpu()).item()))
    assert int(criterion.steps) == 1
    expected = sum(batch * value for batch, value in parts) / 5
    assert criterion.moving_average.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("row", ROWS)
def test_a_target_that_wants_a_gradient_and_a_retained_graph(backend, device, row):
    x_hat, x = images(device=device)
    x.requires_grad_()
    weight = weights(x.shape, device)
    loss = row.function(x_hat, x, kappa=0.1, weight=weight)
    first = torch.autograd.grad(loss, (x_hat, x), retain_graph=True)
    second = torch.autograd.grad(loss, (x_hat, x))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    assert torch.allclose(first[0], -first[1])
    assert first[0].count_nonzero() > 0


def test_weights_get_no_gradient(backend, device):
    x_hat, x = images(device=device)
    weight = torch.ones_like(x, requires_grad=True)
    loss = gf.reconstruction_error(x_hat, x, kappa=0.1, weight=weight)
    assert torch.autograd.grad(loss, (x_hat, weight), allow_unused=True)[1] is None


def test_expanded_weights_and_targets(backend, device):
    """One mask for all examples and channels, never written out."""
    x_hat, x = images((3, 2, 16, 16), device=device)
    y_hat, y = doubled(x_hat, x)
    mask = (torch.rand(1, 1, 16, 16, device=device) > 0.5).expand(3, 2, 16, 16)
    value = gf.reconstruction_error(x_hat, x, kappa=0.1, weight=mask)
    assert_as_the_oracle(value, x_hat, SQUARED.expected(y_hat, y, 0.1, weight=mask.cpu()), y_hat)


class WeightedBrightness(geco_ext.Constraint):
    """A user's own: it gets the weights as they are."""

    def forward(self, x_hat, x, labels=None, weight=None):
        difference = x_hat - x if weight is None else torch.where(weight > 0, x_hat - x, 0.0)
        return difference.mean((1, 2, 3)).square() - self.kappa


def test_a_constraint_of_a_users_own(device, backend):
    x_hat, x = images(device=device)
    weight = weights(x.shape, device)
    kl = torch.zeros((), device=device)
    criterion = GECOLoss([WeightedBrightness(0.1), ReconstructionError(0.1)], multiplier_init=1.0).to(device)
    y_hat, y = doubled(x_hat, x)
    w = weight.cpu()
    own = torch.where(w > 0, y_hat - y, 0.0).mean((1, 2, 3)).square().mean() - 0.1
    loss = criterion(x_hat, x, kl, weight=weight)
    assert_as_the_oracle(loss, x_hat, own + SQUARED.expected(y_hat, y, 0.1, weight=w), y_hat)


def beside():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    class Own(geco_ext.Constraint):
        def forward(self, x_hat, x, labels=None):
            return (x_hat - x).mean()

    return {
        "patch_ncc": geco_ext.PatchNCC(0.9, patch_size=3),
        "local_statistics": geco_ext.LocalStatistics(0.1, patch_size=3),
        "structural_similarity": geco_ext.StructuralSimilarity(0.9, patch_size=3),
        "feature_reconstruction_error": geco_ext.FeatureReconstructionError(0.1, network),
        "classification_accuracy": geco_ext.ClassificationAccuracy(0.9, network),
        "own": Own(),
    }


@pytest.mark.parametrize("name", beside())
def test_constraints_that_cannot_weigh_refuse(name):
    criterion = GECOLoss([ReconstructionError(0.1), beside()[name]])
    x_hat, x = images((2, 1, 8, 8))
    before = criterion._block.clone()
    with pytest.raises(ValueError, match=f"weight: got one beside constraint '{name}'") as refused:
        criterion(x_hat, x, torch.zeros(()), labels=torch.zeros(2, dtype=torch.long), weight=torch.ones(2, 1, 8, 8))
    assert torch.equal(criterion._block.nan_to_num(), before.nan_to_num())
    named = str(refused.value).partition("(")[2]
    for constraint in geco_ext.constraints.__all__:
        assert (constraint in named) == (constraint in {row.constraint.__name__ for row in TABLE})


BAD = {
    "list": ([1.0], TypeError, "weight: got list, expected a tensor"),
    "integers": (torch.ones(2, 3, 8, 8, dtype=torch.int64), TypeError, "weight: got dtype torch.int64, expected bool"),
    "shape": (torch.ones(2, 2, 8, 8), ValueError, r"weight: got shape \(2, 2, 8, 8\), expected \(2, 3, 8, 8\)"),
    "one example": (torch.ones(1, 3, 8, 8), ValueError, r"weight: got shape \(1, 3, 8, 8\)"),
    "device": (torch.ones(2, 3, 8, 8, device="meta"), ValueError, "weight: got device meta, expected cpu"),
    "negative": (-torch.ones(2, 3, 8, 8), ValueError, "weight: got values from -1.0 to -1.0, expected finite"),
    "nan": (torch.full((2, 3, 8, 8), math.nan), ValueError, "weight: got values from nan to nan"),
    "infinite": (torch.full((2, 3, 8, 8), math.inf), ValueError, "weight: got values from inf to inf"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_weights_name_the_argument_and_move_nothing(case):
    weight, error, message = BAD[case]
    x_hat, x = images((2, 3, 8, 8))
    criterion = GECOLoss([ReconstructionError(0.1)])
    before = criterion._block.clone()
    with pytest.raises(error, match=message):
        criterion(x_hat, x, torch.zeros(()), weight=weight)
    for row in TABLE:
        with pytest.raises(error, match=message):
            row.function(x_hat, x, kappa=0.1, weight=weight)
    assert torch.equal(criterion._block.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize(
    ("images_of", "shape", "message"),
    [
        ((2, 1, 8, 6), (2, 8, 6), "expected (2, 1, 8, 6), the shape of x_hat; write weight=mask[:, None]"),
        ((2, 3, 8, 6), (2, 8, 6), ", or (2, 1, 8, 6), for all channels; write weight=mask[:, None]"),
        ((2, 3, 8, 6), (8, 6), ", or (2, 1, 8, 6), for all channels"),
        ((2, 5), (5,), "expected (2, 5), the shape of x_hat, or (2, 1), for all channels"),
    ],
)
def test_a_mask_of_another_shape_is_told_what_to_write(images_of, shape, message):
    """Which lets it pass, and no shape is named twice."""
    criterion, (x_hat, x) = GECOLoss(ReconstructionError(0.1)), images(images_of)
    mask = torch.ones(shape)
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        criterion(x_hat, x, torch.zeros(()), weight=mask)
    if "mask[:, None]" in message:
        criterion(x_hat, x, torch.zeros(()), weight=mask[:, None])


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_bad_values_that_nobody_looks_at_make_the_constraint_nan(backend, device, bad, monkeypatch):
    """As on a GPU, where a look would wait for the device."""
    monkeypatch.setattr("geco_ext.weights._shows_values", lambda weight: False)
    x_hat, x = images(device=device)
    weight = torch.ones_like(x)
    weight[2, 0, 3, 3] = bad
    criterion = GECOLoss([ReconstructionError(0.1), TABLE[-1].constraint(0.1, channels=2, name="channel")]).to(device)
    for w in (weight, weight[:, :1]):
        assert not criterion(x_hat, x, torch.zeros((), device=device), weight=w).isfinite()
    assert int(criterion.skipped) == 2


@pytest.mark.parametrize("row", ROWS)
def test_gradients_of_float64_equal_differences(row):
    x_hat, x = images((3, 2, 3, 4), torch.float64)
    weight = weights(x.shape)
    for w in (weight, weight[:, :1]):
        assert torch.autograd.gradcheck(
            lambda a, b, w=w: row.function(a, b, kappa=0.1, weight=w), (x_hat, x.requires_grad_())
        )
        criterion = GECOLoss([row.constraint(0.1, channels=2)], multiplier_init=2.0).eval()
        kl = torch.rand(3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda a, b, k, w=w, c=criterion: c(a, b, k, weight=w), (x_hat, x, kl))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_calls_have_no_graph_break(dynamic):
    torch._dynamo.reset()
    criterion = GECOLoss(elementwise.constraints_of(elementwise.vectors(channels=2)[0]))
    eager = GECOLoss(elementwise.constraints_of(elementwise.vectors(channels=2)[0]))
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    x_hat, x = images((3, 2, 8, 8))
    weight = weights((3, 1, 8, 8))
    for _ in range(2):
        kl = torch.rand(3)
        losses = compiled(x_hat, x, kl, weight=weight), eager(x_hat, x, kl, weight=weight)
        assert torch.allclose(*losses)
        gradients = [torch.autograd.grad(loss, x_hat)[0] for loss in losses]
        assert torch.allclose(*gradients)
    assert torch.allclose(criterion.multiplier, eager.multiplier)


@pytest.mark.parametrize("name", ["training_loss", "evaluation_loss", "constraint_sums"])
def test_opcheck(name):
    from geco_ext.state import new_block

    x_hat, x = images((3, 2, 4, 4))
    update = (0.99, 0.05, 5.0, "log", 1.0, 1) if name == "training_loss" else ()
    arguments = (
        [x_hat.detach()], [x], [torch.rand(3, 1, 4, 4)], torch.rand(3), new_block(1), "squared_error", [-1],
        [torch.empty_like(x)], [True, False], 3, 32,
    )  # fmt: skip
    torch.library.opcheck(getattr(torch.ops.geco_ext, name).default, (*arguments, *update))


def test_operators_refuse_weights_that_do_not_belong(cpu_windows):
    from geco_ext.state import new_block

    x_hat, x = images((3, 2, 4, 4))
    for terms, weight, message in (
        ("squared_error", torch.rand(3, 2, 4, 3), "weights have the shape"),
        ("squared_error", torch.rand(3, 2, 4, 4, dtype=torch.float64), "weights are float64 beside"),
        ("patch_ncc patch_size=3 eps=0.1", torch.rand(3, 2, 4, 4), "does not compare number by number"),
    ):
        arguments = ([x_hat.detach()], [x], [weight], None, new_block(1), terms, [-1], [], [False, False], 3, 32)
        with pytest.raises(ValueError, match=message):
            torch.ops.geco_ext.evaluation_loss.default(*arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sum_beyond_the_type_is_no_weight_of_none(backend, device, dtype):
    """Examples of huge weights are not left out in silence; what is written into is not the caller's."""
    x_hat, x = (image.float() for image in images((4, 1, 8, 8), device))
    weight = torch.ones(4, 1, 8, 8, dtype=dtype, device=device)
    weight[1:] = 1e37
    before = weight.clone()
    criterion = GECOLoss([ReconstructionError(0.1)]).to(device)
    loss = criterion(x_hat, x, torch.zeros(4, device=device), weight=weight)
    assert torch.isnan(loss)
    assert int(criterion.skipped) == 1
    assert torch.equal(weight, before)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float16, torch.float32, torch.float64])
def test_the_callers_weights_stay_as_they_are(backend, device, dtype):
    x_hat, x = images((4, 3, 8, 8), device)
    weight = weights((4, 3, 8, 8), device).to(dtype)
    before = weight.clone()
    gf.reconstruction_error(x_hat, x, kappa=0.1, weight=weight)
    assert torch.equal(weight, before)


def test_sparse_weights_are_refused():
    x = torch.rand(2, 1, 4, 4)
    with pytest.raises(TypeError, match="weight: got a tensor of layout torch.sparse_coo, expected a dense one"):
        gf.reconstruction_error(x, x, kappa=0.1, weight=torch.ones(2, 1, 4, 4).to_sparse())

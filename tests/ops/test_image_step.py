"""A call of the usual kind is one call into the extension: the same bits as on the path of all calls, and never where
something is not usual."""

import functools
import pickle

import elementwise
import pytest
import torch

import geco_ext
from geco_ext import (
    GECOLoss,
    LocalStatistics,
    PatchNCC,
    ReconstructionError,
    StructuralSimilarity,
    backends,
)
from geco_ext.backends import native
from geco_ext.ops import dispatch

CONSTRAINTS = {
    "errors": lambda: [ReconstructionError(0.1)],
    "channels": lambda: [ReconstructionError(0.1), ReconstructionError(0.2, channels=3, name="channel")],
    "windows": lambda: [ReconstructionError(0.1), PatchNCC(0.9, 4), LocalStatistics(0.1, 3, stride=2)],
    "similarity": lambda: [StructuralSimilarity(0.9, 4), ReconstructionError(0.1), PatchNCC(0.9, 4, per_channel=True)],
}
# Every kind of error: together, and what has loops of its own, one alone beside windows.
for number, members in enumerate(elementwise.vectors(channels=3)):
    CONSTRAINTS[f"all errors {number}"] = functools.partial(elementwise.constraints_of, members)
for row in elementwise.TABLE[1:]:
    CONSTRAINTS[f"{row.kind} beside windows"] = lambda row=row: [PatchNCC(0.9, 4), row.constraint(0.1)]


ON_GPU = [pytest.mark.gpu] if torch.cuda.is_available() else []


@pytest.fixture(params=["cpu", *(pytest.param(name, marks=ON_GPU) for name in ("cuda", "triton"))])
def backend(request):
    """Name of one with one-call steps."""
    return request.param


@pytest.fixture
def device(backend, monkeypatch):
    """Of the backend, which serves every call without being asked for."""
    if backend not in geco_ext.available_backends():
        pytest.skip(f"{backend}: {dispatch.unavailable(backend)}")
    monkeypatch.delenv("GECO_EXT_BACKEND", raising=False)
    device = torch.device("cuda:0" if backend != "cpu" and torch.cuda.is_available() else "cpu")
    monkeypatch.setitem(dispatch._PREFERENCE, device.type, (backend,))
    dispatch.best_for.cache_clear()
    yield device
    dispatch.best_for.cache_clear()


@pytest.fixture
def taken(device, monkeypatch):
    """What the backend's image steps have returned, call by call."""
    results = []

    def noting(*criterion):
        step = image_step(*criterion)

        def forward(*images):
            results.append(step.forward(*images))
            return results[-1]

        return step._replace(forward=forward)

    backend = dispatch.best_for(device)
    image_step = backend.image_step
    monkeypatch.setattr(backend, "image_step", noting)
    return results


def images(device, dtype=torch.float32, shape=(2, 3, 12, 11), kl_dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    x_hat, x = (torch.rand(shape, generator=generator).to(device, dtype) for _ in range(2))
    kl = torch.rand(shape[0], generator=generator).to(device, kl_dtype)
    return x_hat.requires_grad_(), x, kl.requires_grad_()


def outcome(loss_of, arguments, calls):
    """Losses, gradients and state of several calls, the last one of an eval."""
    found = []
    for number in range(calls):
        loss_of.train(number < calls - 1)
        arguments[0].grad = arguments[2].grad = None
        loss = loss_of(*arguments)
        (loss * (1.0 if number % 2 else 0.5)).backward()
        found += [loss.detach(), arguments[0].grad, arguments[2].grad, loss_of._block.nan_to_num()]
    return found


@pytest.mark.parametrize("kind", CONSTRAINTS)
@pytest.mark.parametrize(
    ("dtype", "kl_dtype"),
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float16),
    ],
    ids=str,
)
def test_the_bits_of_the_path_of_all_calls(device, taken, monkeypatch, kind, dtype, kl_dtype):
    arguments = images(device, dtype, kl_dtype=kl_dtype)
    in_one_call = outcome(GECOLoss(CONSTRAINTS[kind]()).to(device), arguments, 4)
    assert len(taken) == 4
    assert None not in taken
    monkeypatch.setattr(dispatch.best_for(device), "image_step", lambda *criterion: None)
    expected = outcome(GECOLoss(CONSTRAINTS[kind]()).to(device), arguments, 4)
    for got, wanted in zip(in_one_call, expected, strict=True):
        assert got.dtype == wanted.dtype
        assert got.stride() == wanted.stride()
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "gaps", "expanded"])
def test_any_layout(device, taken, monkeypatch, layout):
    x_hat, x, kl = images(device)
    changed = {
        "channels_last": lambda t: t.detach().to(memory_format=torch.channels_last),
        "transposed": lambda t: t.detach().transpose(2, 3),
        "gaps": lambda t: t.detach()[..., ::2],
        "expanded": lambda t: t.detach()[:, :1].expand(-1, 3, -1, -1),
    }[layout]
    arguments = changed(x_hat).requires_grad_(), x if layout == "channels_last" else changed(x), kl
    in_one_call = outcome(GECOLoss(CONSTRAINTS["windows"]()).to(device), arguments, 3)
    assert None not in taken
    monkeypatch.setattr(dispatch.best_for(device), "image_step", lambda *criterion: None)
    expected = outcome(GECOLoss(CONSTRAINTS["windows"]()).to(device), arguments, 3)
    assert all(torch.equal(got, wanted) for got, wanted in zip(in_one_call, expected, strict=True))


def test_without_gradients(device, taken):
    loss_of = GECOLoss(CONSTRAINTS["windows"]()).to(device)
    arguments = images(device)
    with torch.no_grad():
        loss = loss_of(*arguments)
    assert not loss.requires_grad
    assert taken[-1][1:] == (None, None, False)
    x_hat, x, kl = (tensor.detach() for tensor in arguments)
    assert not loss_of.eval()(x_hat, x, kl).requires_grad
    assert taken[-1][1:] == (None, None, False)
    assert int(loss_of.steps) == 1
    loss_of(x_hat, x, kl.requires_grad_()).backward()
    assert x_hat.grad is None
    assert torch.equal(kl.grad, torch.full_like(kl, 0.5))


def test_the_gradient_as_often_as_it_is_asked_for(device, taken):
    """``retain_graph`` and ``create_graph`` leave the usual case."""
    x_hat, x, kl = images(device)
    loss = GECOLoss(CONSTRAINTS["errors"]()).to(device)(x_hat, x, kl)
    assert None not in taken
    first = torch.autograd.grad(loss, x_hat, torch.full_like(loss, 2.0), retain_graph=True)[0]
    (second,) = torch.autograd.grad(loss, x_hat, create_graph=True)
    assert torch.equal(first, 2 * second)
    with pytest.raises(RuntimeError, match="no second derivative"):
        second.sum().backward()
    (third,) = torch.autograd.grad(loss, x_hat)
    assert torch.equal(second, third)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(loss, x_hat)


@pytest.mark.parametrize(
    "unusual",
    [
        lambda x_hat, x, kl: (x_hat, x[:, :, :5], kl),
        lambda x_hat, x, kl: (x_hat[:0], x[:0], kl[:0]),
        lambda x_hat, x, kl: (x_hat[:, :2], x[:, :2], kl),  # channels=3
        lambda x_hat, x, kl: (x_hat[:, :, :2], x[:, :, :2], kl),  # patches of 4
        lambda x_hat, x, kl: (x_hat, x, kl[:1]),
        lambda x_hat, x, kl: (x_hat, x.to(torch.int64), kl),
    ],
    ids=["shapes", "empty", "channels", "patch", "kl", "integers"],
)
def test_what_does_not_fit_is_refused_by_name(device, taken, unusual):
    loss_of = GECOLoss([*CONSTRAINTS["channels"](), PatchNCC(0.9, 4)]).to(device)
    before = loss_of._block.clone()
    with pytest.raises((ValueError, TypeError), match=r"^(x_hat|x|kl|patch_size)"):
        loss_of(*unusual(*images(device)))
    assert taken == [None]
    assert torch.equal(loss_of._block.nan_to_num(), before.nan_to_num())


def test_one_channel_is_not_taken_for_all(device):
    """A constraint for each of one channel has one row, as one for all channels has."""
    x_hat, x, kl = images(device)
    with pytest.raises(ValueError, match="expected 1 channels"):
        GECOLoss([ReconstructionError(0.1, channels=1)]).to(device)(x_hat, x, kl)


def test_an_eval_call_before_the_first_step(device, taken):
    loss_of = GECOLoss(CONSTRAINTS["errors"]()).to(device).eval()
    x_hat, x, kl = images(device)
    loss = loss_of(x_hat, x, kl)
    assert None not in taken
    lowest = 3 * 12 * 11 / (2 * 0.1**2) / 1000
    expected = kl.mean() + lowest * ((x_hat - x).square().mean() - 0.1**2)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    assert loss_of.multiplier.isnan().all()


def test_a_backend_that_is_asked_for_serves(device, taken, monkeypatch):
    arguments = images(device)
    loss_of = GECOLoss(CONSTRAINTS["errors"]()).to(device)
    with geco_ext.use_backend("reference"):
        loss_of(*arguments)
    monkeypatch.setenv("GECO_EXT_BACKEND", "reference")
    loss_of(*arguments)
    assert taken == [None]  # nobody is asked inside use_backend
    monkeypatch.delenv("GECO_EXT_BACKEND")
    loss = loss_of(*arguments)
    assert taken[-1] is not None
    scaled = []
    monkeypatch.setattr(backends.load("reference"), "scale_gradients", lambda *a: scaled.append(a))
    with geco_ext.use_backend("reference"):
        loss.backward()
    assert len(scaled) == 1


def described_by_methods(monkeypatch):
    """As with a PyTorch that has no DLPack table of C functions."""
    monkeypatch.delattr(torch.Tensor, "__dlpack_c_exchange_api__", raising=False)
    native.extension.cache_clear()
    native.extension()  # hands PyTorch over once more


@pytest.mark.parametrize("kind", ["errors", "windows"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_tensors_that_are_asked_by_their_methods(device, taken, monkeypatch, kind, dtype):
    arguments = images(device, dtype)
    expected = outcome(GECOLoss(CONSTRAINTS[kind]()).to(device), arguments, 3)
    with monkeypatch.context() as patched:
        described_by_methods(patched)
        got = outcome(GECOLoss(CONSTRAINTS[kind]()).to(device), arguments, 3)
    native.extension.cache_clear()
    native.extension()
    assert len(taken) == 6
    assert None not in taken
    assert all(map(torch.equal, got, expected))


def test_settings_that_change_between_calls(device, taken):
    """They are kept from call to call, and made anew when an attribute is."""
    x_hat, x, kl = arguments = images(device)
    changes = [
        {"alpha": 0.5},
        {"update": geco_ext.MultiplierUpdate(lr=0.5, proportional=1.0)},
        {"accumulation_steps": 2},
        {"alpha": 0.9, "accumulation_steps": 1},
    ]
    kept, fresh = (GECOLoss(CONSTRAINTS["errors"]()).to(device) for _ in range(2))
    kept(*arguments)
    fresh(*arguments)
    for number, change in enumerate(changes):
        for name, value in change.items():
            setattr(kept, name, value)
            setattr(fresh, name, value)
        fresh._known.clear()
        kept(x_hat, x * number, kl)
        fresh(x_hat, x * number, kl)
        assert torch.equal(kept._block.nan_to_num(), fresh._block.nan_to_num())
    before = kept.moving_average.clone()
    copied = pickle.loads(pickle.dumps(kept))
    copied.alpha = 0.1
    for criterion in (copied, kept):
        criterion(*arguments)
        expected = criterion.alpha * before + (1 - criterion.alpha) * criterion.last_constraint
        assert torch.allclose(criterion.moving_average, expected, rtol=1e-12, atol=0)
    assert None not in taken


def test_a_setting_that_a_subclass_computes(device, taken):
    """It is asked for at every call, as on the path of all calls."""

    class Forgetful(GECOLoss):
        alpha = property(lambda self: 0.5 if int(self.steps) < 2 else 0.0, lambda self, value: None)

    x_hat, x, kl = images(device)
    criterion = Forgetful(CONSTRAINTS["errors"]()).to(device)
    for number in range(4):
        criterion(x_hat, x * number, kl)
    assert torch.equal(criterion.moving_average, criterion.last_constraint)
    assert None not in taken


def test_a_tensor_that_has_outlived_a_transform(device, taken):
    """A wrapper without storage, which only PyTorch's own way into a Function takes off."""
    x_hat, x, kl = images(device)
    escaped = []
    torch.func.grad(lambda image: (escaped.append(image), image.sum())[1])(x_hat.detach())
    loss = GECOLoss(CONSTRAINTS["errors"]()).to(device)(escaped[0], x, kl)
    assert taken == [None]
    assert torch.equal(loss, GECOLoss(CONSTRAINTS["errors"]()).to(device)(x_hat, x, kl))


def test_inside_a_transform_nothing_moves(device, taken):
    x_hat, x, kl = images(device)
    loss_of = GECOLoss(CONSTRAINTS["errors"]()).to(device)
    with pytest.raises(RuntimeError):
        torch.func.grad(lambda image: loss_of(image, x, kl))(x_hat.detach())
    assert taken == []
    assert int(loss_of.steps) == 0


class Image(torch.Tensor):
    """A subclass of a user's."""


@pytest.mark.parametrize(
    "incoming",
    [
        lambda one: (2 * one).as_subclass(Image),
        lambda one: torch.complex(one, -2 * one).conj().imag,
        lambda one: torch._efficientzerotensor((), device=one.device),
        lambda one: (2 * one).to(torch.float32),
    ],
    ids=["subclass", "negated", "zero", "plain"],
)
def test_any_incoming_gradient(device, incoming):
    x_hat, x, kl = images(device)
    found = []
    for gradient in (incoming(torch.ones((), device=device)), incoming(torch.ones((), device=device)).clone()):
        x_hat.grad = kl.grad = None
        GECOLoss(CONSTRAINTS["errors"]()).to(device)(x_hat, x, kl).backward(gradient)
        found.append((torch.Tensor(x_hat.grad), torch.Tensor(kl.grad)))
    factor = float(incoming(torch.ones(())))
    x_hat.grad = kl.grad = None
    GECOLoss(CONSTRAINTS["errors"]()).to(device)(x_hat, x, kl).backward()
    for image_gradient, kl_gradient in found:
        assert torch.equal(image_gradient, factor * x_hat.grad)
        assert torch.equal(kl_gradient, factor * kl.grad)


def test_a_target_that_wants_a_gradient(device, taken):
    x_hat, x, kl = images(device)
    GECOLoss(CONSTRAINTS["errors"]()).to(device)(x_hat, x.requires_grad_(), kl).backward()
    assert taken == [None]
    assert torch.allclose(x.grad, -x_hat.grad)


def test_a_negated_view(device, taken):
    """The imaginary part of a conjugate has its sign in a flag."""
    x_hat, x, kl = images(device)
    negated = torch.complex(x, -x).conj().imag
    assert negated.is_neg()
    losses = [GECOLoss(CONSTRAINTS["errors"]()).to(device)(x_hat, target, kl) for target in (x, negated)]
    assert taken[1] is None
    assert torch.equal(*losses)


def test_a_plan_that_does_not_fit_takes_the_next_backend(device, taken, monkeypatch):
    """As the kernel's own plan says; nothing has moved."""
    backend = dispatch.best_for(device)
    if backend.name == "triton":
        monkeypatch.setattr(backend, "refuses", lambda call: "no")
        monkeypatch.setitem(dispatch._PREFERENCE, device.type, ("reference",))
    else:
        monkeypatch.setattr(backend.kernels, "image_step", lambda *step: None)
    loss_of = GECOLoss(CONSTRAINTS["windows"]()).to(device)
    loss_of(*images(device)).backward()
    assert taken == [None]
    assert int(loss_of.steps) == 1


def test_the_kernels_refuse_a_patch_beyond_their_memory(device, taken, monkeypatch):
    if dispatch.best_for(device).name != "cuda":
        pytest.skip("patches of any size are the CPU's")
    x = torch.rand(1, 1, 400, 400, device=device)
    monkeypatch.setitem(dispatch._PREFERENCE, device.type, ("cuda", "reference"))
    loss_of = GECOLoss([PatchNCC(0.9, 399)]).to(device)
    with pytest.warns(RuntimeWarning, match="shared memory"):
        loss_of(x, x, torch.zeros((), device=device))
    assert taken == [None]
    assert int(loss_of.steps) == 1

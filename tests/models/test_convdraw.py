import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import geco_ext.data
from geco_ext.models import ConvDraw, Noise
from geco_ext.models.diagonal_gaussian import ConvolutionalGaussian, DiagonalGaussian
from geco_ext.training.models import build_model

SMALL: dict[str, Any] = {"steps": 3, "hidden": 6, "latent": 2}

FORMS = {
    "shared": ((1, 8, 8), {}),
    "per step": ((1, 8, 8), {"shared": 0}),
    "conditional": ((1, 8, 8), {"context_shape": (2, 8, 8)}),
    "conditional, per step": ((1, 8, 8), {"context_shape": (2, 8, 8), "shared": False}),
    "down-sampled by 2": ((1, 8, 8), {"downsampling": 2}),
    "rectangular": ((1, 8, 12), {"downsampling": 4}),
    "colours, rectangular, down-sampled by 2": ((3, 10, 6), {"downsampling": 2, "context_shape": (1, 10, 6)}),
    "one step": ((1, 8, 8), {"steps": 1}),
}


def made(form: str) -> tuple[ConvDraw, list[Tensor]]:
    """A model of one of the forms, its weights moved, and what its forward takes: x, and the context if any."""
    image_shape, options = FORMS[form]
    model = shaken(ConvDraw(image_shape, **{**SMALL, **options}))
    shapes = [image_shape] if model.context_shape is None else [image_shape, model.context_shape]
    return model, [torch.rand(5, *shape) for shape in shapes]


def shaken(model: ConvDraw) -> ConvDraw:
    """Canvas and decoder start at zero and some weights are small; move every one so that all of them matter."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def seeded_call(call: Callable[..., Any], *arguments: Any) -> Any:
    torch.manual_seed(7)
    return call(*arguments)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("form", FORMS)
def test_shapes_of_everything_returned(form: str) -> None:
    model, inputs = made(form)
    x, context = inputs[0], inputs[1:]
    output = model(*inputs)
    height, width = (side // FORMS[form][1].get("downsampling", 4) for side in x.shape[2:])
    assert output.x_hat.shape == x.shape
    assert 0 <= output.x_hat.min() <= output.x_hat.max() <= 1
    assert output.kl.shape == (5,)
    assert output.step_kl.shape == (model.steps, 5)
    assert output.latents.shape == (model.steps, 5, 2, height, width)
    assert model.progress(*inputs).shape == (model.steps, *x.shape)
    assert model.sample(5, *context).shape == x.shape
    for without_gradient in (model.reconstruct(*inputs), model.progress(*inputs), model.sample(5, *context)):
        assert not without_gradient.requires_grad
        assert 0 <= without_gradient.min() <= without_gradient.max() <= 1


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 32, 32), (1, 28, 28), (3, 64, 64)])
def test_defaults_fit_the_data_sets(shape: tuple[int, int, int]) -> None:
    output = ConvDraw(shape)(torch.rand(2, *shape))
    assert output.x_hat.shape == (2, *shape)
    assert output.kl.max() < 1  # the last layers start small


@pytest.mark.parametrize("form", FORMS)
def test_kl_is_the_sum_of_its_steps(form: str) -> None:
    """Posterior and prior are watched as they come out of their layers, and torch says what lies between them."""
    model, inputs = made(form)
    model.double()
    posteriors, priors = watched(model, "posterior"), watched(model, "prior")
    output = model(*[tensor.double() for tensor in inputs])
    expected = torch.stack(
        [
            kl_divergence(Normal(q.mean, q.log_std.exp()), Normal(p.mean, p.log_std.exp())).sum((1, 2, 3))
            for q, p in zip(posteriors, priors, strict=True)
        ]
    )
    assert len(expected) == model.steps
    torch.testing.assert_close(output.step_kl, expected)
    torch.testing.assert_close(output.kl, expected.sum(0))


def watched(model: ConvDraw, name: str) -> list[DiagonalGaussian]:
    """The Gaussians that come out of layers of that name from now on."""
    seen: list[DiagonalGaussian] = []
    for path, module in model.named_modules():
        if path.endswith(f".{name}"):
            assert isinstance(module, ConvolutionalGaussian)
            module.register_forward_hook(lambda _module, _inputs, gaussian: seen.append(gaussian))
    return seen


def test_codes_are_drawn_from_the_posterior() -> None:
    model, (x,) = made("shared")
    posteriors = watched(model, "posterior")
    with torch.no_grad():
        latents = model(x[:1].expand(20_000, -1, -1, -1)).latents[0]
    q = posteriors[0]
    noise = (latents - q.mean) / q.log_std.exp()
    assert noise.mean(0).abs().max() < 5 / math.sqrt(20_000)
    assert (noise.var(0) - 1).abs().max() < 5 * math.sqrt(2 / 20_000)


@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_gets_a_finite_gradient(form: str) -> None:
    image_shape, options = FORMS[form]
    model = ConvDraw(image_shape, **{**SMALL, **options})
    shaken_model, inputs = made(form)
    for each in (model, shaken_model):
        output = each(*inputs)
        (output.kl.mean() + (output.x_hat - inputs[0]).square().mean()).backward()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in each.parameters())
    idle = {name for name, parameter in shaken_model.named_parameters() if not parameter.grad.abs().sum() > 0}
    assert not idle


def test_shared_weights_are_the_same_weights_in_every_step() -> None:
    shared, (x,) = made("shared")
    own = ConvDraw((1, 8, 8), **SMALL, shared=False)
    weights = shared.state_dict()
    own.load_state_dict(
        {
            name: weights[".".join(["step_networks.0", *name.split(".")[2:]]) if name.startswith("step") else name]
            for name in own.state_dict()
        }
    )
    torch.testing.assert_close(seeded_call(own, x), seeded_call(shared, x))
    with torch.no_grad():
        own.step_networks[1].write[0].bias.add_(1.0)
    changed = (seeded_call(own.progress, x) - seeded_call(shared.progress, x)).abs().flatten(1).amax(1)
    assert changed[0] == 0
    assert changed[1:].min() > 0


def test_the_canvas_grows_into_the_reconstruction() -> None:
    model, (x,) = made("shared")
    progress = seeded_call(model.progress, x)
    torch.testing.assert_close(progress[-1], seeded_call(model.reconstruct, x))
    torch.testing.assert_close(progress[-1], seeded_call(model, x).x_hat)
    assert all((progress[t] != progress[t + 1]).any() for t in range(model.steps - 1))


def test_the_context_changes_the_reconstruction() -> None:
    model, (x, context) = made("conditional")
    output, other = seeded_call(model, x, context), seeded_call(model, x, context.roll(1, 0))
    assert (output.x_hat - other.x_hat).abs().flatten(1).amax(1).min() > 1e-3
    assert (output.step_kl - other.step_kl).abs().min() > 0  # the prior sees it from the first step on


def test_the_prior_of_the_first_step_sees_the_context() -> None:
    model, (_, context) = made("conditional")
    priors = watched(model, "prior")
    model.sample(5, context)
    model.sample(5, context.roll(1, 0))
    assert (priors[0].mean - priors[model.steps].mean).abs().max() > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_sampling_never_sees_an_image(form: str) -> None:
    model, inputs = made(form)
    context = inputs[1:]

    def sampled() -> Tensor:
        return model.sample(5, *context, generator=torch.Generator().manual_seed(3))

    before = sampled()
    model(torch.rand_like(inputs[0]), *context)
    assert torch.equal(sampled(), before)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(f".{part}." in name for part in ("read", "encoder", "posterior")):
                parameter.fill_(torch.nan)
    assert torch.equal(sampled(), before)
    with torch.no_grad():
        model.step_networks[0].prior.mean_and_log_std.bias.add_(1.0)
    assert not torch.equal(sampled(), before)


def test_samples_follow_the_generator() -> None:
    model, _ = made("shared")
    first, second, other = (model.sample(3, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_samples_use_the_context_of_their_row() -> None:
    model, (_, context) = made("conditional")

    def sampled(context: Tensor) -> Tensor:
        return model.sample(5, context, generator=torch.Generator().manual_seed(3))

    changed = context.clone()
    changed[2] = 1 - changed[2]
    differs = (sampled(context) - sampled(changed)).abs().flatten(1).amax(1) > 1e-5
    assert differs.tolist() == [False, False, True, False, False]


def test_more_steps_reach_a_lower_error() -> None:
    """The codes of all steps together say more: one number for 4x4 pixels and step."""
    images = geco_ext.data.load("digits", size=8)[:64]["x"]
    errors = {steps: trained_error(ConvDraw((1, 8, 8), steps=steps, hidden=8, latent=1), images) for steps in (1, 4)}
    assert errors[4] < 0.8 * errors[1]


def trained_error(model: ConvDraw, images: Tensor, steps: int = 150) -> float:
    """RMSE after some steps of training for reconstruction alone."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        error = (model(images).x_hat - images).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    return float(error.detach().sqrt())


@pytest.mark.parametrize("form", ["shared", "conditional, per step"])
def test_float64_agrees_with_float32(form: str) -> None:
    model, inputs = made(form)
    noise = [torch.randn(5, 2, 2, 2, dtype=torch.float64) for _ in range(model.steps)]

    def drawn() -> Noise:
        draws = iter(noise)
        return lambda tensor: next(draws).to(tensor.dtype)

    single = model(*inputs, noise=drawn())
    double = model.double()(*[tensor.double() for tensor in inputs], noise=drawn())
    assert double.x_hat.dtype == double.kl.dtype == double.latents.dtype == torch.float64
    for one, two in zip(single, double, strict=True):
        torch.testing.assert_close(one.double(), two, rtol=1e-4, atol=1e-4)


def test_log_stds_are_bounded_whatever_the_weights() -> None:
    model, (x,) = made("shared")
    posteriors, priors = watched(model, "posterior"), watched(model, "prior")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1000.0)
    output = model(x)
    assert 7.9 < max(gaussian.log_std.abs().max() for gaussian in [*posteriors, *priors]) <= 8
    assert all(tensor.isfinite().all() for tensor in output)


@pytest.mark.parametrize("form", ["shared", "conditional, per step"])
def test_compiles_without_graph_breaks(form: str) -> None:
    model, inputs = made(form)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(seeded_call(compiled, *inputs), seeded_call(model, *inputs))


def test_densities_stay_in_the_precision_of_the_weights_under_autocast() -> None:
    model, (x,) = made("shared")
    model = ConvDraw((1, 8, 8), **SMALL)
    expected = seeded_call(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        output = seeded_call(model, x)
    assert output.kl.dtype == output.latents.dtype == torch.float32
    torch.testing.assert_close(output.x_hat, expected.x_hat, rtol=0.05, atol=0.05)


def test_the_registry_builds_it_from_integers() -> None:
    options = {"steps": 2, "hidden": 4, "latent": 1, "downsampling": 2, "shared": 0}
    model = build_model("convdraw", (1, 8, 8), (1, 8, 8), options)
    assert isinstance(model, ConvDraw)
    assert len(model.step_networks) == 2
    with pytest.raises(ValueError, match="model 'convdraw' has no option 'depth'; it takes steps=4, hidden=16"):
        build_model("convdraw", (1, 8, 8), None, {"depth": 2})


def test_context_to_a_model_that_takes_none_is_refused() -> None:
    model, (x,) = made("shared")
    for call in (
        lambda: model(x, x),
        lambda: model.sample(5, x),
        lambda: model.reconstruct(x, context=x),
        lambda: model.progress(x, x),
    ):
        with pytest.raises(ValueError, match=r"context: got a tensor of shape \(5, 1, 8, 8\), expected None"):
            call()


def test_a_missing_context_is_refused() -> None:
    model, (x, _) = made("conditional")
    for call in (lambda: model(x), lambda: model.sample(5), lambda: model.reconstruct(x), lambda: model.progress(x)):
        with pytest.raises(ValueError, match=r"context: got None, expected a tensor of shape \(5, 2, 8, 8\)"):
            call()


@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (5, 2, 8, 4), (4, 2, 8, 8), (2, 8, 8)])
def test_a_context_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    model, (x, _) = made("conditional")
    for call in (lambda: model(x, torch.rand(shape)), lambda: model.sample(5, torch.rand(shape))):
        with pytest.raises(ValueError, match=r"context: got shape .* expected \(5, 2, 8, 8\)"):
            call()


@pytest.mark.parametrize("shape", [(2, 1, 12, 8), (2, 3, 8, 8), (1, 8, 8)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x: got shape .* expected \[B, 1, 8, 8\]"):
        ConvDraw((1, 8, 8), **SMALL)(torch.rand(shape))


@pytest.mark.parametrize(
    ("shape", "downsampling"), [((1, 10, 8), 4), ((1, 8, 30), 4), ((3, 7, 8), 2), ((8, 8), 2), ((0, 8, 8), 2)]
)
def test_image_shapes_that_cannot_be_down_sampled_are_refused(shape: tuple[int, ...], downsampling: int) -> None:
    with pytest.raises(ValueError, match=r"image_shape: got .* expected"):
        ConvDraw(shape, downsampling=downsampling)


@pytest.mark.parametrize("shape", [(1, 4, 8), (0, 8, 8), (8, 8)])
def test_context_shapes_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"context_shape: got .* expected"):
        ConvDraw((1, 8, 8), context_shape=shape)


@pytest.mark.parametrize(
    ("argument", "value", "expected"),
    [
        ("steps", 0, "at least 1"),
        ("hidden", 0, "at least 1"),
        ("latent", -1, "at least 1"),
        ("downsampling", 3, "2 or 4"),
        ("shared", 2, "0 or 1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(argument: str, value: int, expected: str) -> None:
    with pytest.raises(ValueError, match=f"{argument}: got {value}, expected {expected}"):
        ConvDraw((1, 8, 8), **{argument: value})

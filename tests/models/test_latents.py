"""From images to latents and back, the same for all models."""

import pytest
import torch
from latent_models import FORMS, made
from torch.distributions import Distribution

from geco_ext.models import GivenNoise, VariationalAutoencoder

MEANS_IN_CLOSED_FORM = ["Gaussian", "one step"]
SAMPLES = 3000
CONDITIONAL = "conditional, per step, rectangular"


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


def seeded_call(call, *arguments, **options):
    torch.manual_seed(7)
    return call(*arguments, **options)


def prior_of(model, *context):
    return model.conditional_prior(*context) if context else model.prior


def test_decoding_the_latents_of_a_pass_gives_its_reconstruction(form):
    model, (x, *context) = made(form)
    assert isinstance(model, VariationalAutoencoder)
    output = model(x, *context)
    assert output.z.shape == (3, model.latent_size)
    torch.testing.assert_close(model.decode(output.z, *context), output.x_hat)
    for index in range(model.latent_size):  # every latent shows in the image
        moved = output.z.clone()
        moved[:, index] += 1
        assert (model.decode(moved, *context) - output.x_hat).abs().flatten(1).amax(1).min() > 1e-6


def test_a_pass_takes_a_sample_of_the_posterior(form):
    model, inputs = made(form)
    posterior = model.encode(*inputs)
    assert isinstance(posterior, Distribution)
    assert (posterior.batch_shape, posterior.event_shape) == ((3,), (model.latent_size,))
    torch.testing.assert_close(seeded_call(posterior.rsample), seeded_call(model, *inputs).z)


def test_densities_of_many_samples_are_those_of_each(form):
    model, inputs = made(form)
    posterior = model.double().encode(*[tensor.double() for tensor in inputs])
    z, log_prob = posterior.rsample_and_log_prob((4, 2))
    assert z.shape == (4, 2, 3, model.latent_size)
    assert log_prob.shape == (4, 2, 3)
    torch.testing.assert_close(posterior.log_prob(z), log_prob)
    torch.testing.assert_close(posterior.log_prob(z[1, 1]), log_prob[1, 1])
    assert posterior.log_prob(z[1, 1, 0]).shape == (3,)
    torch.testing.assert_close(posterior.log_prob(z[1, 1, 0])[0], log_prob[1, 1, 0])


def test_the_posterior_of_one_example_broadcasts_against_many_values(form):
    model, inputs = made(form)
    posterior = model.encode(*[tensor[:1] for tensor in inputs])
    z = posterior.sample((5,))
    torch.testing.assert_close(posterior.log_prob(z[:, 0]), posterior.log_prob(z)[:, 0])


def test_kl_is_the_mean_log_ratio_of_posterior_and_prior(form):
    model, (x, *context) = made(form)
    with torch.no_grad():
        posterior, prior = model.encode(x, *context), prior_of(model, *context)
        assert prior.event_shape == posterior.event_shape
        z, log_posterior = posterior.rsample_and_log_prob((SAMPLES,))
        log_ratio = log_posterior - prior.log_prob(z)
        kl = model(*[tensor.repeat(SAMPLES, 1, 1, 1) for tensor in (x, *context)]).kl.view(SAMPLES, 3)
    standard_error = ((log_ratio.var(0) + kl.var(0)) / SAMPLES).sqrt()
    assert ((log_ratio.mean(0) - kl.mean(0)).abs() < 5 * standard_error + 1e-4).all()
    assert (kl.mean(0) > 10 * standard_error).all()


@pytest.mark.parametrize("form", ["steps", CONDITIONAL])
def test_samples_of_a_recurrent_prior_are_those_of_the_model(form):
    model, (_, *context) = made(form)

    generator = torch.Generator().manual_seed(3)
    z, log_prob = prior_of(model, *context).rsample_and_log_prob(
        () if context else (3,), noise=lambda like: torch.randn(like.shape, generator=generator)
    )
    torch.testing.assert_close(prior_of(model, *context).log_prob(z), log_prob)
    expected = model.sample(3, *context, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(model.decode(z, *context), expected)


def test_an_embedding_says_the_same_of_the_same_image(form):
    model, inputs = made(form)
    z = seeded_call(model.embed, *inputs)
    assert z.shape == (3, model.latent_size)
    assert not z.requires_grad
    assert torch.equal(model.embed(*inputs), z)
    assert (z - z.roll(1, 0)).abs().amax(1).min() > 1e-3
    torch.testing.assert_close(model(*inputs, noise=torch.zeros_like).z, z)


@pytest.mark.parametrize("form", MEANS_IN_CLOSED_FORM)
def test_an_embedding_is_the_mean_of_a_gaussian_posterior(form):
    model, inputs = made(form)
    samples = model.encode(*inputs).sample((SAMPLES,))
    standard_error = samples.std(0) / len(samples) ** 0.5
    assert ((samples.mean(0) - model.embed(*inputs)).abs() < 5 * standard_error).all()


def test_samples_are_averaged_on_demand(form):
    model, inputs = made(form)
    posterior = model.encode(*inputs)
    torch.testing.assert_close(seeded_call(model.embed, *inputs, samples=1), seeded_call(posterior.sample))
    torch.manual_seed(7)
    expected = torch.stack([posterior.sample() for _ in range(3)]).mean(0)
    torch.testing.assert_close(seeded_call(model.embed, *inputs, samples=3), expected)
    with pytest.raises(ValueError, match="samples: got -1, expected at least 0"):
        model.embed(*inputs, samples=-1)


def test_means_without_a_closed_form_are_refused(form):
    posterior = made(form)[0].encode(*made(form)[1])
    for name in ("mean", "variance", "stddev"):
        with pytest.raises(NotImplementedError, match=r"no closed form in general; estimate it .*sample\(\(n,\)\)"):
            getattr(posterior, name)


def test_interpolation_leads_from_one_reconstruction_to_the_other(form):
    model, (a, *context_a) = made(form)
    b, context_b = a.flip(0), [each.flip(0) for each in context_a]
    images = model.interpolate(a, b, 5, *context_a, *context_b)
    assert images.shape == (5, *a.shape)
    assert not images.requires_grad
    first, last = model.embed(a, *context_a), model.embed(b, *context_b)
    torch.testing.assert_close(images[0], model.decode(first, *context_a))
    torch.testing.assert_close(images[-1], model.decode(last, *context_b))
    context = [(one + other) / 2 for one, other in zip(context_a, context_b, strict=True)]
    torch.testing.assert_close(images[2], model.decode((first + last) / 2, *context))


def test_gradients_reach_encoder_and_decoder(form):
    model, (x, *context) = made(form)
    z, log_prob = model.encode(x, *context).rsample_and_log_prob()
    (model.decode(z, *context).square().sum() + log_prob.sum()).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert all(".prior." in name for name in without)


def test_noise_is_given_in_the_order_of_the_latents(form):
    model, inputs = made(form)
    numbers = torch.randn(3, model.latent_size)
    output = model(*inputs, noise=GivenNoise(numbers))
    moved = numbers.clone()
    moved[:, -1] += 1
    changed = (model(*inputs, noise=GivenNoise(moved)).z - output.z).abs() > 1e-6
    assert changed.any(1).all()
    if form in MEANS_IN_CLOSED_FORM:
        assert changed.sum() == 3  # only the last latent of each example


def test_tensors_that_do_not_fit_are_refused(form):
    model, (x, *context) = made(form)
    size = model.latent_size
    for shape in [(3, size + 1), (size,), (1, 3, size)]:
        with pytest.raises(ValueError, match=rf"z: got shape .*, expected \[B, {size}\]"):
            model.decode(torch.zeros(shape), *context)
    with pytest.raises(ValueError, match=rf"value: got shape \(3, {size + 1}\), expected \[..., B, {size}\]"):
        model.encode(x, *context).log_prob(torch.zeros(3, size + 1))
    for call in (model.encode, model.embed):
        with pytest.raises(ValueError, match="x: got shape"):
            call(x[..., 1:], *context)
        with pytest.raises(ValueError, match="context: got"):
            call(x, *(() if context else (x,)))
    with pytest.raises(ValueError, match="context: got"):
        model.decode(torch.zeros(3, size), *(() if context else (x,)))
    with pytest.raises(ValueError, match="steps: got 1, expected at least 2"):
        model.interpolate(x, x, 1, *context, *context)
    with pytest.raises(ValueError, match="a and b: got shapes"):
        model.interpolate(x, x[:1], 3, *context, *context)


def test_a_prior_that_needs_a_context_says_so():
    model, (_, context) = made(CONDITIONAL)
    for call in (model.prior.sample, lambda: model.prior.log_prob(torch.zeros(model.latent_size))):
        with pytest.raises(ValueError, match="prior: got a conditional model.*conditional_prior"):
            call()
    with pytest.raises(ValueError, match="context: got shape"):
        model.conditional_prior(context[..., 1:])
    with pytest.raises(ValueError, match=r"context: got a tensor of shape .*, expected None"):
        made("steps")[0].conditional_prior(context)

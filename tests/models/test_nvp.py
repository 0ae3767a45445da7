import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from geco_ext.models import NVPVAE
from geco_ext.models.coupling_flow import CouplingFlow


def shaken(module: torch.nn.Module, scale: float = 0.3) -> torch.nn.Module:
    """Couplings start as the identity; move every weight so that the flow does something."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn_like(parameter) / math.sqrt(parameter.shape[-1]))
    return module


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 8, 12), (1, 16, 16), (1, 28, 28), (3, 32, 32), (1, 48, 64), (3, 64, 64)]
)
def test_shapes_of_everything_returned(shape: tuple[int, int, int]) -> None:
    model = NVPVAE(shape, latent=5, flows=2, hidden=16, channels=4)
    x = torch.rand(3, *shape)
    output = model(x)
    assert output.x_hat.shape == x.shape
    assert output.kl.shape == (3,)
    assert output.z.shape == (3, 5)
    assert 0 <= output.x_hat.min() <= output.x_hat.max() <= 1
    assert model.reconstruct(x).shape == x.shape
    assert not model.reconstruct(x).requires_grad
    assert model.sample(4).shape == (4, *shape)
    posterior = model.posterior(x)
    assert isinstance(posterior, Distribution)
    assert (posterior.batch_shape, posterior.event_shape) == ((3,), (5,))
    assert posterior.rsample((2, 7)).shape == (2, 7, 3, 5)
    assert posterior.log_prob(posterior.sample((2, 7))).shape == (2, 7, 3)
    assert posterior.log_prob(torch.zeros(9, 1, 5)).shape == (9, 3)
    assert posterior.log_prob(torch.zeros(5)).shape == (3,)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize(("latent", "flows"), [(2, 1), (3, 2), (7, 5), (24, 4)])
def test_inverse_of_the_flow_is_exact(dtype: torch.dtype, tolerance: float, latent: int, flows: int) -> None:
    flow = shaken(CouplingFlow(latent, features=6, flows=flows, hidden=32)).to(dtype)
    z, features = torch.randn(4, 8, latent, dtype=dtype), torch.randn(8, 6, dtype=dtype)
    y, log_det = flow(z, features)
    assert (y - z.flip(-1) if flows == 2 else y - z).abs().max() > 0.1
    back, inverse_log_det = flow.inverse(y, features)
    torch.testing.assert_close(back, z, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("latent", [2, 5])
def test_log_determinant_is_that_of_the_jacobian(latent: int) -> None:
    flow = shaken(CouplingFlow(latent, features=6, flows=4, hidden=32)).double()
    z, features = torch.randn(latent, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda z: flow(z, features)[0], z)
    torch.testing.assert_close(flow(z, features)[1], torch.linalg.slogdet(jacobian).logabsdet)


def test_every_latent_passes_through_a_coupling() -> None:
    flow = shaken(CouplingFlow(5, features=3, flows=2, hidden=16))
    z, features = torch.randn(1, 5), torch.zeros(1, 3)
    assert (flow(z, features)[0] != z.flip(-1)).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("coupling_layers", [1, 3])
def test_density_of_a_sample_is_the_one_computed_on_the_way_out(
    images: Tensor, coupling_layers: int, dtype: torch.dtype, tolerance: float
) -> None:
    model = shaken(NVPVAE((1, 8, 8), latent=6, coupling_layers=coupling_layers, hidden=32))
    posterior = model.to(dtype).posterior(images.to(dtype))
    z, log_prob = posterior.rsample_and_log_prob((50,))
    torch.testing.assert_close(posterior.log_prob(z), log_prob, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("flows", "coupling_layers"), [(4, 1), (6, 3)])
def test_density_integrates_to_one(images: Tensor, flows: int, coupling_layers: int) -> None:
    model = shaken(NVPVAE((1, 8, 8), latent=2, flows=flows, coupling_layers=coupling_layers, hidden=32), 0.4)
    posterior = model.double().posterior(images[:2].double())
    with torch.no_grad():
        samples = posterior.sample((2000,)).flatten(0, 1)
        middle, reach = samples.mean(0), 12 * samples.std(0)
        axes = [torch.linspace(-1, 1, 501, dtype=torch.float64) * reach[i] + middle[i] for i in range(2)]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 1, 2)
        cell = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
        mass = posterior.log_prob(grid).exp().sum(0) * cell
    torch.testing.assert_close(mass, torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-3)


@pytest.mark.parametrize("coupling_layers", [1, 3])
def test_every_parameter_gets_a_finite_gradient(images: Tensor, coupling_layers: int) -> None:
    model = NVPVAE((1, 8, 8), coupling_layers=coupling_layers)
    output = model(images)
    (output.kl.mean() + output.x_hat.square().mean()).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    shaken(model).zero_grad()
    output = model(images)
    (output.kl.mean() + output.x_hat.square().mean()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_log_scales_are_bounded_whatever_the_weights(images: Tensor) -> None:
    model = shaken(NVPVAE((1, 8, 8), latent=6, flows=4), 1000.0)
    posterior = model.posterior(images)
    assert 7.9 < posterior.base_log_std.abs().max() <= 8
    _, log_det = model.flow(torch.randn(6, 6), torch.randn(6, 256))
    assert log_det.abs().max() <= 4 * 3 * 3


def test_densities_stay_in_the_precision_of_the_weights_under_autocast(images: Tensor) -> None:
    model = shaken(NVPVAE((1, 8, 8), latent=4))
    torch.manual_seed(0)
    expected = model(images).kl
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        kl = model(images).kl
    assert kl.dtype == torch.float32
    torch.testing.assert_close(kl, expected, rtol=0.05, atol=0.1)


def test_kl_of_a_gaussian_posterior_is_unbiased(images: Tensor) -> None:
    model = shaken(NVPVAE((1, 8, 8), latent=3, flows=0)).double()
    x = images[:1].double()
    posterior = model.posterior(x)
    base = Independent(Normal(posterior.base_mean, posterior.base_log_std.exp()), 1)
    prior = Independent(Normal(torch.zeros(3, dtype=torch.float64), 1.0), 1)
    with torch.no_grad():
        kl = model(x.expand(20_000, -1, -1, -1)).kl
        torch.testing.assert_close(posterior.log_prob(z := torch.randn(9, 1, 3).double()), base.log_prob(z))
    standard_error = kl.std() / math.sqrt(len(kl))
    assert abs(kl.mean() - kl_divergence(base, prior).item()) < 4 * standard_error


def test_kl_is_log_posterior_minus_log_prior(images: Tensor) -> None:
    model = shaken(NVPVAE((1, 8, 8), latent=4)).double()
    torch.manual_seed(3)
    kl = model(images.double()).kl
    torch.manual_seed(3)
    posterior = model.posterior(images.double())
    z = posterior.rsample()
    prior = Independent(Normal(torch.zeros(4, dtype=torch.float64), 1.0), 1)
    torch.testing.assert_close(kl, posterior.log_prob(z) - prior.log_prob(z))


def test_samples_follow_the_generator() -> None:
    model = NVPVAE((1, 8, 8))
    first, second, other = (model.sample(3, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_repeated_training_is_bit_identical(images: Tensor) -> None:
    def trained() -> list[Tensor]:
        torch.manual_seed(0)
        model = NVPVAE((1, 8, 8), latent=4)
        optimizer = torch.optim.Adam(model.parameters())
        for _ in range(3):
            output = model(images)
            optimizer.zero_grad()
            (output.kl.mean() + output.x_hat.square().mean()).backward()
            optimizer.step()
        return [parameter.detach() for parameter in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(trained(), trained(), strict=True))


def test_compiles_without_graph_breaks(images: Tensor) -> None:
    model = shaken(NVPVAE((1, 8, 8), latent=4))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.manual_seed(0)
    expected = model(images)
    torch.manual_seed(0)
    torch.testing.assert_close(compiled(images), expected)


def test_context_is_refused(images: Tensor) -> None:
    model = NVPVAE((1, 8, 8))
    for call in (
        lambda: model(images, images),
        lambda: model.sample(2, images),
        lambda: model.reconstruct(images, context=images),
    ):
        with pytest.raises(ValueError, match=r"context: got a tensor of shape \(6, 1, 8, 8\), expected None"):
            call()


@pytest.mark.parametrize("shape", [(1, 7, 7), (1, 4, 32), (1, 17, 17), (1, 16, 18), (3, 30, 30), (16, 16), (0, 16, 16)])
def test_image_shapes_that_cannot_be_down_sampled_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image_shape: got .* expected"):
        NVPVAE(shape)


@pytest.mark.parametrize("argument", ["latent", "flows", "coupling_layers", "hidden", "channels"])
def test_sizes_that_are_too_small_are_refused(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument}: got -1, expected at least"):
        NVPVAE((1, 8, 8), **{argument: -1})


def test_one_latent_has_no_coupling() -> None:
    with pytest.raises(ValueError, match="latent: got 1, expected at least 2"):
        NVPVAE((1, 8, 8), latent=1)
    assert NVPVAE((1, 8, 8), latent=1, flows=0)(torch.rand(2, 1, 8, 8)).kl.shape == (2,)


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (2, 3, 8, 8), (1, 8, 8)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x: got shape .* expected \[B, 1, 8, 8\]"):
        NVPVAE((1, 8, 8))(torch.rand(shape))


def test_log_prob_of_another_number_of_latents_is_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match="value: got shape"):
        NVPVAE((1, 8, 8), latent=4).posterior(images).log_prob(torch.zeros(6, 3))

"""The coupling flow against zuko's, which is written independently, with the same weights."""

import math

import pytest
import torch
import zuko
from torch import Tensor
from torch.distributions import Transform
from torch.distributions.transforms import AffineTransform
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.transforms import ComposedTransform, PermutationTransform

from geco_ext.models.coupling_flow import MAX_LOG_SCALE, AffineCoupling, CouplingFlow
from geco_ext.models.posterior import FlowPosterior

FEATURES = 6


def random_flow(latent: int, flows: int, layers: int, scale: float = 1.0) -> CouplingFlow:
    """Couplings start as the identity; move every weight so that the flow does something."""
    torch.manual_seed(0)
    flow = CouplingFlow(latent, FEATURES, flows=flows, hidden=16, layers=layers).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(scale * torch.randn_like(parameter) / math.sqrt(parameter.shape[-1]))
    return flow


def linear_layers(module: torch.nn.Module) -> list[torch.nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]


def bounded_affine(shift: Tensor, log_scale: Tensor) -> Transform:
    return AffineTransform(shift, (MAX_LOG_SCALE * torch.tanh(log_scale / MAX_LOG_SCALE)).exp())


def zuko_coupling(ours: AffineCoupling, latent: int, layers: int) -> GeneralCouplingTransform:
    """zuko's coupling with the weights of ours; it computes (shift, log_scale) latent by latent."""
    mask = torch.arange(latent) < latent // 2
    theirs = GeneralCouplingTransform(
        latent, FEATURES, mask, univariate=bounded_affine, hidden_features=[16] * layers
    ).double()
    first, *further, last = [layer for layer in theirs.hyper if [*layer.parameters()]]
    with torch.no_grad():
        first.weight.copy_(torch.cat([ours.from_latent.weight, ours.from_features.weight], dim=1))
        first.bias.copy_(ours.from_latent.bias)
        for layer, our_layer in zip(further, linear_layers(ours.further_layers), strict=True):
            layer.weight.copy_(our_layer.weight)
            layer.bias.copy_(our_layer.bias)
        for name in ("weight", "bias"):
            log_scale, shift = getattr(ours.log_scale_and_shift, name).chunk(2)
            getattr(last, name).copy_(torch.stack([shift, log_scale], dim=1).flatten(0, 1))
    return theirs


def zuko_transform(flow: CouplingFlow, latent: int, layers: int, features: Tensor) -> Transform:
    turned = PermutationTransform(torch.arange(latent).flip(0))
    steps: list[Transform] = []
    for coupling in flow.couplings:
        steps += [turned, zuko_coupling(coupling, latent, layers)(features)]
    return ComposedTransform(*steps[1:])


@pytest.mark.parametrize(("latent", "flows", "layers"), [(2, 1, 1), (4, 2, 1), (5, 3, 2), (24, 8, 3)])
def test_the_flow_is_that_of_zuko(latent: int, flows: int, layers: int) -> None:
    flow = random_flow(latent, flows, layers)
    features = torch.randn(9, FEATURES, dtype=torch.float64)
    z = torch.randn(9, latent, dtype=torch.float64)
    y, log_det = flow(z, features)
    expected, expected_log_det = zuko_transform(flow, latent, layers, features).call_and_ladj(z)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(log_det, expected_log_det)


@pytest.mark.parametrize(("latent", "flows", "layers"), [(2, 2, 1), (5, 3, 2), (24, 8, 3)])
def test_the_posterior_density_is_that_of_zuko(latent: int, flows: int, layers: int) -> None:
    flow = random_flow(latent, flows, layers)
    mean, log_std, z = torch.randn(3, 9, latent, dtype=torch.float64).unbind()
    features = torch.randn(9, FEATURES, dtype=torch.float64)
    base = zuko.distributions.DiagNormal(mean, (0.3 * log_std).exp())
    theirs = zuko.distributions.NormalizingFlow(zuko_transform(flow, latent, layers, features).inv, base)
    ours = FlowPosterior(mean, 0.3 * log_std, flow, features)
    torch.testing.assert_close(ours.log_prob(z), theirs.log_prob(z))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("layers", [1, 3])
def test_inverse_of_forward_is_the_identity_in_deep_flows(dtype: torch.dtype, tolerance: float, layers: int) -> None:
    flow = random_flow(6, 8, layers, scale=0.3).to(dtype)
    z, features = torch.randn(3, 9, 6, dtype=dtype), torch.randn(9, FEATURES, dtype=dtype)
    y, log_det = flow(z, features)
    assert (y - z).abs().max() > 0.1
    back, inverse_log_det = flow.inverse(y, features)
    torch.testing.assert_close(back, z, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_a_coupling_has_as_many_hidden_layers_as_asked(layers: int) -> None:
    flow = CouplingFlow(4, FEATURES, flows=1, hidden=16, layers=layers)
    assert sum(layer.weight.shape == (16, 16) for layer in linear_layers(flow)) == layers - 1
    z, features = torch.randn(3, 4), torch.randn(3, FEATURES)
    torch.testing.assert_close(flow(z, features), (z, torch.zeros(3)))  # starts as the identity, whatever its depth

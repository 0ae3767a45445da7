import pytest
import torch

from geco_ext.models import NVPVAE, ConvDraw, WholeBatchNoise

MODELS = [lambda: NVPVAE((1, 8, 8), latent=4, hidden=16), lambda: ConvDraw((1, 8, 8), hidden=4, steps=3)]


@pytest.mark.parametrize("made", MODELS)
def test_a_part_of_a_batch_is_reconstructed_as_within_the_whole(made):
    model, x = made(), torch.rand(6, 1, 8, 8)
    torch.manual_seed(1)
    whole = model(x)
    for rank in range(3):
        torch.manual_seed(1)
        part = model(x[rank::3], noise=WholeBatchNoise(rank, 3))
        torch.testing.assert_close(part.x_hat, whole.x_hat[rank::3])
        torch.testing.assert_close(part.kl, whole.kl[rank::3])


@pytest.mark.parametrize("made", MODELS)
def test_noise_comes_from_a_generator_of_ones_own(made):
    model, x = made(), torch.rand(2, 1, 8, 8)

    def reconstructed():
        generator = torch.Generator().manual_seed(5)
        return model(x, noise=lambda like: torch.randn(like.shape, generator=generator)).x_hat

    before = torch.get_rng_state()
    assert torch.equal(reconstructed(), reconstructed())
    assert torch.equal(before, torch.get_rng_state())

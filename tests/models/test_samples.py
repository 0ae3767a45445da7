import pytest

from geco_ext.models import NVPVAE, ConvDraw


@pytest.mark.parametrize("model", [NVPVAE, ConvDraw])
@pytest.mark.parametrize("n", [0, -1])
def test_fewer_than_one_sample(model, n):
    with pytest.raises(ValueError, match=f"n: got {n}, expected at least 1"):
        model((1, 8, 8)).sample(n)

"""States saved by earlier versions: with fewer rows, and a word of the kernels' own at the end."""

import pickle

import pytest
import torch

from geco_ext import GECOLoss, PatchNCC, ReconstructionError, state


def trained(make):
    criterion = make([ReconstructionError(0.1), PatchNCC(0.9, 3)])
    x_hat, x = torch.rand(2, 1, 6, 6), torch.rand(2, 1, 6, 6)
    for _ in range(3):
        criterion(x_hat, x, torch.zeros(2))
    return criterion


@pytest.mark.parametrize("more", [0, 1], ids=["without a ticket", "with a ticket"])
def test_a_pickle_with_fewer_rows(more):
    """From before multipliers followed the error and kappa a schedule."""
    criterion = trained(GECOLoss.natural)
    old = pickle.loads(pickle.dumps(criterion))
    rows = 11 * len(old.names)
    old._block = torch.cat([old._block[:rows], old._block[-4:], torch.zeros(more, dtype=torch.float64)])
    del old._ranges
    old._start = [None, None], [None, None]
    restored = pickle.loads(pickle.dumps(old))
    assert restored._block.shape == criterion._block.shape
    assert torch.equal(restored._block.view(torch.int64), criterion._block.view(torch.int64))
    assert int(restored.steps) == 3
    arguments = torch.rand(2, 1, 6, 6), torch.rand(2, 1, 6, 6), torch.zeros(2)
    assert torch.equal(restored(*arguments), criterion(*arguments))


def test_a_block_of_today_is_kept_as_it_is():
    for constraints in (1, 2, 30):
        block = state.new_block(constraints)
        assert state.upgraded(block, constraints) is block


def test_a_state_dict_of_an_earlier_version_keeps_its_multipliers_by_the_tolerance():
    natural, other = trained(GECOLoss.natural), trained(GECOLoss)
    saved = {name: value for name, value in natural.state_dict().items() if name not in state.LATER_ROWS}
    other.load_state_dict(saved)
    arguments = torch.rand(2, 1, 6, 6), torch.rand(2, 1, 6, 6), torch.zeros(2)
    for _ in range(3):
        assert torch.equal(other(*arguments), natural(*arguments))
    assert all(torch.equal(value, natural.state_dict()[name]) for name, value in other.state_dict().items())

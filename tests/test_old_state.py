"""States saved by earlier versions, whose block ended in a word of the kernels' own."""

import pickle

import torch

from geco_ext import GECOLoss, PatchNCC, ReconstructionError, state


def trained():
    criterion = GECOLoss([ReconstructionError(0.1), PatchNCC(0.9, 3)])
    x_hat, x = torch.rand(2, 1, 6, 6), torch.rand(2, 1, 6, 6)
    for _ in range(3):
        criterion(x_hat, x, torch.zeros(2))
    return criterion


def test_a_pickle_with_a_longer_block():
    criterion = trained()
    old = pickle.loads(pickle.dumps(criterion))
    old._block = torch.cat([criterion._block, torch.zeros(1, dtype=torch.float64)])
    restored = pickle.loads(pickle.dumps(old))
    assert restored._block.shape == criterion._block.shape
    assert torch.equal(restored._block.view(torch.int64), criterion._block.view(torch.int64))
    assert int(restored.steps) == 3
    arguments = torch.rand(2, 1, 6, 6), torch.rand(2, 1, 6, 6), torch.zeros(2)
    assert torch.equal(restored(*arguments), criterion(*arguments))


def test_a_block_of_today_is_kept_as_it_is():
    for constraints in (1, 2, 30):
        block = state.new_block(constraints)
        assert state.without_ticket(block) is block


def test_the_state_dict_is_what_it_was():
    saved = trained().state_dict()
    assert list(saved) == [
        *("log_multiplier", "moving_average", "violation", "kappa", "accumulated"),
        *("accumulated_examples", "micro_batches", "steps", "skipped"),
    ]

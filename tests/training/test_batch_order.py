from itertools import islice

import pytest
import torch

from geco_ext.training.batches import BatchOrder


def batches(count, **arguments):
    return [
        batch.tolist()
        for batch in islice(BatchOrder(**{"examples": 23, "batch_size": 5, "seed": 1, **arguments}), count)
    ]


def test_an_epoch_shows_every_example_once():
    epoch = [index for batch in batches(4, examples=20) for index in batch]
    assert sorted(epoch) == list(range(20))


def test_epochs_and_seeds_differ_and_repeat():
    assert batches(12) == batches(12)
    assert batches(4) != batches(8)[4:]
    assert batches(4) != batches(4, seed=2)


@pytest.mark.parametrize("step", [1, 3, 4, 7, 8])
def test_it_resumes_at_any_step(step):
    assert batches(12)[step:] == batches(12 - step, first_step=step)


def test_ranks_share_a_batch():
    whole = batches(6, batch_size=6)
    shares = [batches(6, batch_size=6, rank=rank, ranks=2) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*shares, strict=True)] == [sorted(batch) for batch in whole]


def test_it_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    batches(10)
    assert torch.equal(before, torch.get_rng_state())


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="batch size must be at most the 23 training examples, got 24"):
        BatchOrder(23, 24, seed=0)

"""``--objective paper:LR``: the paper's Algorithm 1 to the letter in the same training code."""

import pytest
import torch
from tiny_runs import tiny_settings

import geco_ext
from geco_ext.training.objectives import build_objective
from geco_ext.training.run import build_criterion


def test_it_is_algorithm_1_with_the_constraints_given():
    built = build_criterion(tiny_settings(objective="paper:0.5", constraints=("re=0.2",)))
    expected = geco_ext.GECOLoss.paper([geco_ext.ReconstructionError(0.2)], lr=0.5)
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        images = [torch.rand(4, 1, 8, 8, generator=generator) for _ in range(2)]
        losses = [criterion(*images, torch.ones(4)) for criterion in (built, expected)]
        assert torch.equal(*losses)
    assert torch.equal(built.multiplier, expected.multiplier)
    assert float(built.multiplier) != 1


def test_without_constraints_it_takes_the_default_one():
    assert tiny_settings(objective="paper:1").constraints == ("re=0.1",)


@pytest.mark.parametrize("text", ["paper", "paper:", "paper:x", "paper:0", "paper:-1", "paper:nan", "paper:1:2"])
def test_a_wrong_rate_is_named(text):
    with pytest.raises(ValueError, match=f"^objective '{text}': .*; known are geco, natural, paper:LR"):
        build_objective(text, 10, [geco_ext.ReconstructionError(0.2)])

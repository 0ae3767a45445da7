"""A state belongs to its constraints by their names, which a state_dict has beside its entries."""

import io
import warnings

import pytest
import torch
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from geco_ext import AbsoluteError, GECOLoss, ReconstructionError


def criterion_of(*constraints):
    criterion = GECOLoss([constraint(0.1) for constraint in constraints])
    x = torch.zeros(2, 1, 4, 4)
    criterion(x + 0.3, x, torch.ones(2))
    return criterion


def saved_and_read(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def without_prefix(state):
    consume_prefix_in_state_dict_if_present(state, "module.")
    return state


WAYS = {
    "itself": lambda criterion: criterion.state_dict(),
    "a file": lambda criterion: saved_and_read(criterion.state_dict()),
    "as DDP has it": lambda criterion: without_prefix(torch.nn.ModuleDict({"module": criterion}).state_dict()),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("strict", [True, False])
def test_another_order_is_refused_and_moves_nothing(way, strict):
    state = WAYS[way](criterion_of(ReconstructionError, AbsoluteError))
    other = criterion_of(AbsoluteError, ReconstructionError)
    before = other._block.clone()
    with pytest.raises(
        RuntimeError,
        match="got a state of reconstruction_error, absolute_error, expected absolute_error, reconstruction_error",
    ):
        other.load_state_dict(state, strict=strict)
    assert torch.equal(other._block.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize("way", WAYS)
def test_another_name_is_said_and_the_same_is_not(way):
    state = WAYS[way](criterion_of(ReconstructionError))
    renamed = GECOLoss(ReconstructionError(0.1, name="error"))
    with pytest.warns(UserWarning, match="are error here and reconstruction_error in the state") as caught:
        renamed.load_state_dict(state)
    assert caught[0].filename == __file__
    assert float(renamed.log_multiplier) == float(state["log_multiplier"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GECOLoss(ReconstructionError(0.1)).load_state_dict(state)


def test_inside_a_model_the_place_is_named():
    model = torch.nn.ModuleDict({"criterion": criterion_of(ReconstructionError, AbsoluteError)})
    other = torch.nn.ModuleDict({"criterion": criterion_of(AbsoluteError, ReconstructionError)})
    with pytest.raises(RuntimeError, match=r"criterion\.constraints: got a state of"):
        other.load_state_dict(saved_and_read(model.state_dict()))


def test_a_state_without_names_loads_as_ever():
    """Of an earlier version, of safetensors, or picked from a larger one: the entries are what they were."""
    state = dict(criterion_of(ReconstructionError, AbsoluteError).state_dict())
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    other = criterion_of(AbsoluteError, ReconstructionError)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other.load_state_dict(state)
    assert torch.equal(other.log_multiplier, state["log_multiplier"])

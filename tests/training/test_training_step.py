import copy

import pytest
import torch
from tiny_runs import TINY_MODEL
from torch.utils._python_dispatch import TorchDispatchMode

import geco_ext
from geco_ext.training import training_step
from geco_ext.training.training_step import ConstrainedTraining, learning_rate_factor


@pytest.fixture
def module():
    torch.manual_seed(0)
    criterion = geco_ext.GECOLoss([geco_ext.ReconstructionError(kappa=0.1)])
    return ConstrainedTraining(
        geco_ext.models.NVPVAE((1, 8, 8), **TINY_MODEL), criterion, learning_rate=1e-3, steps=10, takes_context=False
    )


def step(module, optimizer, batch):
    optimizer.zero_grad()
    module.training_step(batch, 0).backward()
    module.on_before_optimizer_step(optimizer)
    optimizer.step()


def batch_of(images):
    return {"x": images, "label": torch.zeros(len(images), dtype=torch.int64)}


def everything(module, optimizer):
    return copy.deepcopy([module.model.state_dict(), optimizer.state_dict()["state"]])


def assert_equal(first, second):
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_step_changes_neither_weights_nor_moments(module, value):
    optimizer = module.configure_optimizers()["optimizer"]
    images = torch.rand(8, 1, 8, 8)
    step(module, optimizer, batch_of(images))
    before = everything(module, optimizer)

    broken = images.clone()
    broken[3, 0, 2, 2] = value
    step(module, optimizer, batch_of(broken))
    assert_equal(everything(module, optimizer), before)
    assert int(module.skipped_steps) == 1

    step(module, optimizer, batch_of(images))
    assert int(module.skipped_steps) == 1
    bias = module.model.base.bias.detach()
    assert not torch.equal(bias, before[0]["base.bias"])


def test_a_non_finite_gradient_alone_is_enough_to_skip(module):
    optimizer = module.configure_optimizers()["optimizer"]
    before = copy.deepcopy(module.model.state_dict())
    module.training_step(batch_of(torch.rand(8, 1, 8, 8)), 0).backward()
    next(module.model.parameters()).grad[0] = float("inf")
    module.on_before_optimizer_step(optimizer)
    optimizer.step()
    assert_equal(module.model.state_dict(), before)


class NoReading(TorchDispatchMode):
    """Fails where a number is read from a tensor, which on a GPU waits for it."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "a step reads a number from the device"
        return function(*arguments, **(keywords or {}))


def test_a_step_that_is_not_recorded_reads_nothing_from_the_device(module, monkeypatch):
    monkeypatch.setattr(training_step, "is_recorded", lambda step: False)
    optimizer = module.configure_optimizers()["optimizer"]
    batch = batch_of(torch.rand(8, 1, 8, 8))
    step(module, optimizer, batch)
    with NoReading():
        step(module, optimizer, batch)


def test_the_learning_rate_falls_over_the_last_fifth():
    factors = [learning_rate_factor(step, 100) for step in range(100)]
    assert factors[:81] == [1.0] * 81
    assert factors[90] == pytest.approx(0.5)
    assert 0 < factors[-1] == pytest.approx(0.05)

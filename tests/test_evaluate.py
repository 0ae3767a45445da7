"""What inputs come to, without a trace: ``GECOLoss.evaluate``; and what ``metrics`` tells after a state is loaded."""

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

import geco_ext
from geco_ext import GECOLoss, PatchNCC, ReconstructionError

B = 4


class Deviation(geco_ext.Constraint):
    """With a part that behaves otherwise in training, and remembers what it has seen."""

    def __init__(self, kappa):
        super().__init__(kappa)
        self.normalised = torch.nn.BatchNorm2d(2)

    def forward(self, x_hat, x, labels=None):
        return (self.normalised(x_hat) - x).abs().mean((1, 2, 3)) - self.kappa


def images(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x_hat, x = (torch.rand(B, 2, 6, 6, generator=generator) for _ in range(2))
    return x_hat, x, torch.rand(B, generator=generator)


def criterion_on(device="cpu", steps=2, own=True):
    constraints = [ReconstructionError(0.1), ReconstructionError(0.2, channels=2, name="channel"), PatchNCC(0.9, 3)]
    criterion = GECOLoss([*constraints, *([Deviation(0.1)] if own else [])]).to(device)
    for step in range(steps):
        criterion(*(tensor.to(device) for tensor in images(step)))
    return criterion


def everything_of(criterion):
    modes = [module.training for module in criterion.modules()]
    return modes, criterion._block.clone(), {name: value.clone() for name, value in criterion.named_buffers()}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("steps", [0, 2])
def test_it_is_what_eval_mode_computes_and_leaves_no_trace(backend, device, training, steps):
    criterion = criterion_on(device, steps).train(training)
    inputs = [tensor.to(device) for tensor in images(9)]
    before = everything_of(criterion)
    values = criterion.evaluate(*inputs)
    torch.testing.assert_close(everything_of(criterion), before, rtol=0, atol=0, equal_nan=True)

    evaluating = copy.deepcopy(criterion).eval()
    torch.testing.assert_close(values["loss"], evaluating(*inputs))
    torch.testing.assert_close(values["kl"], inputs[2].mean())
    expected = torch.hstack([constraint(*inputs[:2]).reshape(-1) for constraint in evaluating.constraints[:3]])
    of_own = evaluating.constraints[3](*inputs[:2]).mean()
    names = [f"constraint/{name}" for name in criterion.names]
    assert list(values) == [*names, "kl", "loss"]
    found = torch.stack([values[name] for name in names])
    torch.testing.assert_close(found, torch.hstack([expected, of_own]).double(), rtol=1e-5, atol=1e-6)


def test_without_a_kl_there_are_the_constraints_alone():
    criterion = criterion_on()
    x_hat, x, kl = images(9)
    alone, with_kl = criterion.evaluate(x_hat, x), criterion.evaluate(x_hat, x, kl * torch.nan)
    assert list(alone) == [f"constraint/{name}" for name in criterion.names]
    assert all(torch.equal(value, with_kl[name]) for name, value in alone.items())
    assert with_kl["loss"].isnan()
    assert int(criterion.skipped) == 0


def test_weights_and_labels_count():
    x_hat, x, kl = images()
    weight = torch.rand(B, 1, 6, 6)
    weight[1] = 0
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(72, 3))
    labels = torch.tensor([0, 2, 1, 1])
    weighing = GECOLoss(ReconstructionError(0.1)).eval()
    values = weighing.evaluate(x_hat, x, kl, weight=weight)
    torch.testing.assert_close(values["loss"], weighing(x_hat, x, kl, weight=weight))
    alone = geco_ext.functional.reconstruction_error(x_hat, x, kappa=0.1, weight=weight)
    torch.testing.assert_close(values["constraint/reconstruction_error"].float(), alone)
    classifying = GECOLoss(geco_ext.ClassificationAccuracy(0.9, classifier)).eval()
    values = classifying.evaluate(x_hat, x, kl, labels=labels)
    torch.testing.assert_close(values["loss"], classifying(x_hat, x, kl, labels))


def test_the_gradient_of_what_it_is_given_is_left_alone():
    x_hat, x, kl = images()
    values = criterion_on().evaluate(x_hat.requires_grad_(), x, kl.requires_grad_())
    assert not any(value.requires_grad for value in values.values())


@pytest.mark.parametrize("own", [True, False])
def test_it_compiles_without_graph_breaks(own):
    criterion = criterion_on(own=own)
    torch._dynamo.reset()
    compiled = torch.compile(lambda *inputs: criterion.evaluate(*inputs), fullgraph=True, backend="aot_eager")
    before = everything_of(criterion)
    for seed in (7, 8):
        torch.testing.assert_close(compiled(*images(seed)), criterion.evaluate(*images(seed)))
    torch.testing.assert_close(everything_of(criterion), before, rtol=0, atol=0, equal_nan=True)


def test_it_reads_no_number_and_the_buffers_it_is_called_with():
    criterion = criterion_on(own=False)
    other = criterion_on(steps=5, own=False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert criterion.evaluate(*(torch.rand(B, 2, 6, 6) for _ in range(2)), torch.rand(B))["loss"].shape == ()

    class Evaluating(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.criterion = criterion

        def forward(self, *inputs):
            return self.criterion.evaluate(*inputs)

    rows = {f"criterion.{name}": value for name, value in other.state_dict().items()}
    assert functional_call(Evaluating(), rows, images(9)) == other.evaluate(*images(9))


def test_processes_do_not_wait_for_each_other(monkeypatch):
    """Each may have another number of batches to look at."""
    monkeypatch.setattr(GECOLoss, "_group", lambda self: pytest.fail("asked for the group"))
    criterion_on(steps=0).evaluate(*images())


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"kl": torch.ones(3)}, "kl: got shape"), ({"x": torch.rand(B, 2, 5, 6)}, "x_hat and x: got shapes")],
)
def test_bad_input_is_refused(changed, message):
    x_hat, x, kl = images()
    criterion = criterion_on()
    before = everything_of(criterion)
    with pytest.raises(ValueError, match=f"^{message}"):
        criterion.evaluate(**{"x_hat": x_hat, "x": x, "kl": kl, **changed})
    torch.testing.assert_close(everything_of(criterion), before, rtol=0, atol=0, equal_nan=True)


class TestMetricsAfterLoading:
    def loaded(self, into_steps=0, **settings):
        """The state of a criterion whose multiplier is as high as it may be."""
        update = geco_ext.MultiplierUpdate(lr=10.0)
        saved, criterion = (GECOLoss(ReconstructionError(0.1), update=update, **settings) for _ in range(2))
        for step in range(3):
            saved(*images(step))
        for step in range(into_steps):
            criterion(images(step)[1] + 0.01, *images(step)[1:])
        assert saved.metrics()["at_bound/reconstruction_error"] == 1
        criterion.load_state_dict(saved.state_dict())
        return criterion

    @pytest.mark.parametrize("into_steps", [0, 2])
    def test_given_bounds_are_known_at_once(self, into_steps):
        criterion = self.loaded(into_steps, multiplier_init=1.0, multiplier_bounds=(0.1, 50.0))
        assert criterion.metrics()["at_bound/reconstruction_error"] == 1
        assert criterion.metrics()["constraint/reconstruction_error"].isnan()

    @pytest.mark.parametrize("into_steps", [0, 2])
    def test_automatic_bounds_are_not_known_until_the_next_update(self, into_steps):
        criterion = self.loaded(into_steps)
        for name in ("at_bound", "constraint"):
            assert criterion.metrics()[f"{name}/reconstruction_error"].isnan()
        criterion(*images())
        assert criterion.metrics()["at_bound/reconstruction_error"] == 1
        assert criterion.metrics()["constraint/reconstruction_error"].isfinite()

    def test_before_the_first_update_no_multiplier_rests_on_its_bound(self):
        criterion = GECOLoss(ReconstructionError(0.1), accumulation_steps=2)
        for _ in range(2):
            assert criterion.metrics()["at_bound/reconstruction_error"] == 0
            criterion(*images())

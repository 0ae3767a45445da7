"""GECOLoss: its state, its settings, and what users look at."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch

import geco_ext
from geco_ext import GECOLoss, MultiplierUpdate, ReconstructionError


def criterion_of(*kappas, **settings):
    return GECOLoss([ReconstructionError(k, name=f"re{i}") for i, k in enumerate(kappas)], **settings)


def step(criterion, error=0.2, batch=2, kl=1.0):
    x = torch.zeros(batch, 1, 4, 4, device=criterion.kappa.device)
    return criterion(x + error, x, x.new_full((batch,), kl))


def test_metrics_count_the_skipped_calls():
    criterion = criterion_of(0.1)
    for kl in (1.0, math.nan, 1.0, math.inf):
        step(criterion, kl=kl)
    assert float(criterion.metrics()["skipped"]) == 2
    before = criterion.metrics()["skipped"]
    step(criterion, kl=math.nan)
    assert (int(before), int(criterion.metrics()["skipped"])) == (2, 3)  # a copy


def test_training_under_no_grad_moves_the_state():
    criterion = criterion_of(0.1)
    with torch.no_grad():
        step(criterion)
    assert int(criterion.steps) == 1


def test_the_loss_of_a_training_step_shows_the_moving_average():
    criterion = criterion_of(0.1, multiplier_init=1.0, alpha=0.5, update=MultiplierUpdate(lr=0.0, proportional=0.0))
    step(criterion, error=0.2)
    loss = step(criterion, error=0.4)
    average = 0.5 * 0.03 + 0.5 * 0.15
    assert float(loss) == pytest.approx(1.0 + average)
    assert float(criterion.moving_average) == pytest.approx(average)
    assert float(criterion.last_constraint) == pytest.approx(0.15)


def test_live_kappa_reaches_the_next_step_and_the_state():
    constraint = ReconstructionError(0.1)
    criterion = GECOLoss([constraint])
    constraint.kappa = 0.3
    assert constraint.kappa == pytest.approx(0.3)
    assert criterion.kappa.tolist() == [0.3]
    step(criterion, error=0.2)
    assert float(criterion.last_constraint) == pytest.approx(0.04 - 0.09, abs=1e-7)
    assert criterion.state_dict()["kappa"].tolist() == [0.3]


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, "soft"])
def test_a_bad_live_kappa_changes_nothing(bad):
    criterion = criterion_of(0.1)
    with pytest.raises(ValueError, match="kappa"):
        criterion.constraints[0].kappa = bad
    assert criterion.kappa.tolist() == [0.1]


def test_one_constraint_in_two_criteria():
    constraint = ReconstructionError(0.1)
    first, second = GECOLoss([constraint]), GECOLoss.paper([constraint], lr=0.1)
    constraint.kappa = 0.2
    assert first.kappa.tolist() == second.kappa.tolist() == [0.2]


def test_kappa_follows_a_moved_and_a_copied_criterion():
    criterion = criterion_of(0.1).to(torch.float16)
    criterion.constraints[0].kappa = 0.2
    assert criterion.kappa.tolist() == [0.2]
    twin = copy.deepcopy(criterion)
    twin.constraints[0].kappa = 0.3
    assert (criterion.kappa.tolist(), twin.kappa.tolist()) == ([0.2], [0.3])
    step(twin)
    assert (int(criterion.steps), int(twin.steps)) == (0, 1)


def test_state_dict_round_trip_continues_exactly():
    criterion = criterion_of(0.1, 0.2, accumulation_steps=2)
    for i in range(7):
        step(criterion, error=0.1 + 0.03 * i)
    saved = copy.deepcopy(criterion.state_dict())
    assert set(saved) == {
        "log_multiplier", "moving_average", "violation", "kappa", "accumulated",
        "follows_error", "bound_opening",
        "kappa_target", "schedule_start", "schedule_steps", "schedule_step", "schedule_is_linear",
        "accumulated_examples", "micro_batches", "steps", "skipped",
    }  # fmt: skip
    assert all(saved[n].dtype == torch.float64 for n in ("log_multiplier", "moving_average", "kappa", "accumulated"))
    assert all(saved[n].dtype == torch.int64 for n in ("steps", "skipped", "micro_batches", "accumulated_examples"))
    other = criterion_of(0.5, 0.5, accumulation_steps=2)
    other.load_state_dict(pickle.loads(pickle.dumps(saved)))
    for i in range(5):
        assert torch.equal(step(criterion, 0.1 * i), step(other, 0.1 * i))
    for name, value in criterion.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_loaded_state_is_ready_for_eval():
    trained = criterion_of(0.1)
    step(trained)
    fresh = criterion_of(0.1)
    fresh.load_state_dict(trained.state_dict(), assign=True)
    assert torch.equal(step(fresh.eval()), step(trained.eval()))


@pytest.mark.parametrize("spoil", ["count", "missing", "unexpected"])
def test_a_foreign_state_dict_is_refused_whole(spoil):
    criterion = criterion_of(0.1, 0.2)
    step(criterion)
    before = copy.deepcopy(criterion.state_dict())
    foreign = (criterion_of(0.1) if spoil == "count" else copy.deepcopy(criterion)).state_dict()
    foreign["steps"] += 5
    if spoil == "missing":
        del foreign["violation"]
    if spoil == "unexpected":
        foreign["surprise"] = torch.zeros(1)
    with pytest.raises(RuntimeError):
        criterion.load_state_dict(foreign)
    for name, value in criterion.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_state_stays_float64_and_moves_with_the_model():
    model = torch.nn.ModuleDict({"net": torch.nn.Linear(2, 2), "criterion": criterion_of(0.1)})
    for move in (model.half, model.float, model.bfloat16, lambda: model.to(torch.float32), model.cpu):
        move()
        assert model["criterion"].log_multiplier.dtype == torch.float64
        assert model["criterion"].steps.dtype == torch.int64
    step(model["criterion"])
    assert int(model["criterion"].steps) == 1
    meta = copy.deepcopy(model).to("meta")
    assert meta["criterion"].log_multiplier.device.type == "meta"


def test_metrics_are_copies_named_by_constraint():
    criterion = GECOLoss([ReconstructionError(0.1), ReconstructionError(0.2, channels=2, name="channel")])
    x = torch.zeros(2, 2, 4, 4)
    criterion(x + 0.3, x, torch.zeros(()))
    metrics = criterion.metrics()
    names = ("reconstruction_error", "channel/0", "channel/1")
    assert criterion.names == names
    groups = ("multiplier", "constraint", "moving_average", "at_bound", "kappa")
    assert set(metrics) == {*(f"{group}/{name}" for group in groups for name in names), "skipped"}
    kept = {name: value.clone() for name, value in metrics.items()}
    criterion(x + 0.6, x, torch.zeros(()))
    assert all(value.dim() == 0 and torch.equal(value, kept[name]) for name, value in metrics.items())
    assert float(metrics["constraint/channel/1"]) == pytest.approx(0.09 - 0.04, abs=1e-6)


@pytest.mark.parametrize("what", ["x_hat", "kl"])
def test_a_batch_that_is_not_finite_moves_nothing_and_shows(what):
    criterion = criterion_of(0.1)
    step(criterion)
    before = copy.deepcopy(criterion.state_dict())
    loss = step(criterion, error=math.nan) if what == "x_hat" else step(criterion, kl=math.inf)
    assert not math.isfinite(float(loss))
    after = criterion.state_dict()
    assert int(after.pop("skipped")) == int(before.pop("skipped")) + 1
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_a_skipped_first_call_leaves_the_start_open():
    criterion = criterion_of(0.1)
    step(criterion, error=math.nan)
    assert criterion.multiplier.isnan().all()
    assert (int(criterion.steps), int(criterion.skipped)) == (0, 1)
    step(criterion)
    assert int(criterion.steps) == 1


def test_accumulation_averages_over_examples():
    criterion = criterion_of(0.1, accumulation_steps=3)
    for error, batch in ((0.1, 1), (0.2, 5), (math.nan, 3)):
        step(criterion, error, batch)
    assert (int(criterion.steps), int(criterion.skipped), int(criterion.micro_batches)) == (1, 1, 0)
    assert float(criterion.moving_average) == pytest.approx((0.01 * 1 + 0.04 * 5) / 6 - 0.01, abs=1e-7)


def test_accumulation_of_skipped_calls_only_is_no_step():
    criterion = criterion_of(0.1, accumulation_steps=2)
    step(criterion, math.nan)
    step(criterion, math.nan)
    assert (int(criterion.steps), int(criterion.skipped), int(criterion.micro_batches)) == (0, 2, 0)


class Shape(torch.nn.Module):
    """An extractor with everything that could leak: parameters, buffers, dropout."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(1, 4, 3)
        self.normalization = torch.nn.BatchNorm2d(4)

    def forward(self, x):
        return self.normalization(self.convolution(x))


def test_networks_inside_constraints_are_instruments():
    extractor = Shape()
    criterion = GECOLoss([geco_ext.FeatureReconstructionError(0.1, extractor)])
    assert not any(p.requires_grad for p in extractor.parameters())
    assert list(criterion.parameters()) == []
    assert not any("convolution" in key for key in criterion.state_dict())
    criterion.train()
    extractor.train()
    running = extractor.normalization.running_mean.clone()
    x = torch.rand(2, 1, 8, 8)
    criterion(x.clone().requires_grad_(), x, torch.zeros(()))
    assert not extractor.training
    assert torch.equal(running, extractor.normalization.running_mean)
    criterion.to(torch.float64)
    assert extractor.convolution.weight.dtype == torch.float64
    assert criterion.load_state_dict(criterion.state_dict()).missing_keys == []


def test_names_come_from_the_class():
    class LabelSmoothness(geco_ext.Constraint):
        def forward(self, x_hat, x, labels=None):
            return x_hat.mean() - x.mean()

    assert LabelSmoothness().name == "label_smoothness"
    assert geco_ext.PatchNCC(0.9, 4).name == "patch_ncc"
    assert ReconstructionError(0.1, name="pixels").name == "pixels"


def test_a_constraint_without_a_gradient_moves_only_its_multiplier():
    class Sharpness(geco_ext.Constraint):
        def forward(self, x_hat, x, labels=None):
            return (x_hat.detach() > 0.5).float().mean() - 0.2

    criterion = GECOLoss([Sharpness()], multiplier_init=1.0, multiplier_bounds=(0.1, 10.0))
    x_hat = torch.ones(2, 1, 4, 4, requires_grad=True)
    kl = torch.ones((), requires_grad=True)
    for _ in range(3):
        criterion(x_hat, x_hat.detach(), kl).backward()
    assert x_hat.grad is None
    assert float(criterion.multiplier) > 1.0


def test_paper_is_algorithm_1_to_the_letter():
    criterion = GECOLoss.paper([ReconstructionError(0.1)], lr=0.5)
    assert criterion.multiplier.tolist() == [1.0]
    average, log_lambda = None, 0.0
    for error in (0.5, 0.4, 0.05, 0.0):
        step(criterion, error)
        c_hat = float(torch.tensor(error).double() ** 2) - 0.01
        average = c_hat if average is None else 0.99 * average + 0.01 * c_hat
        log_lambda += 0.5 * average
    assert float(criterion.log_multiplier) == pytest.approx(log_lambda, abs=1e-7)


def test_a_callable_and_readable_repr():
    text = repr(criterion_of(0.1))
    assert "ReconstructionError('re0', kappa=0.1)" in text
    assert "alpha=0.99" in text


def test_a_pickled_criterion_is_whole():
    criterion = criterion_of(0.1)
    step(criterion)
    buffer = io.BytesIO()
    torch.save(criterion, buffer)
    buffer.seek(0)
    for twin in (pickle.loads(pickle.dumps(criterion)), torch.load(buffer, weights_only=False)):
        assert torch.equal(twin._block.nan_to_num(), criterion._block.nan_to_num())
        assert twin.log_multiplier.data_ptr() == twin._block.data_ptr()
        before = twin.multiplier
        step(twin, error=0.4)
        assert not torch.equal(twin.multiplier, before)
        twin.constraints[0].kappa = 0.3
        assert twin.kappa.tolist() == [0.3]
    assert torch.save(criterion.state_dict(keep_vars=True), io.BytesIO()) is None


def test_a_constraint_remembers_the_criterion_it_was_bound_to_last():
    constraint = ReconstructionError(0.1)
    GECOLoss([constraint])  # gone at once
    second = GECOLoss([constraint])
    other = criterion_of(0.3)
    state = other.state_dict()
    second.load_state_dict(state)
    assert constraint.kappa == 0.3
    assert float(constraint.kappa_tensor) == 0.3
    assert GECOLoss([constraint]).kappa.tolist() == [0.3]


def test_assigning_to_a_row_writes_the_state():
    criterion = criterion_of(0.1)
    criterion.kappa = torch.tensor([0.25])
    assert criterion.constraints[0].kappa == 0.25
    step(criterion, error=0.25)
    assert float(criterion.last_constraint) == pytest.approx(0.0, abs=1e-7)


def test_subclasses_keep_their_own_parameters_and_buffers():
    class Weighted(GECOLoss):
        def __init__(self, constraints):
            super().__init__(constraints)
            self.weight = torch.nn.Parameter(torch.ones(2))
            self.register_buffer("offset", torch.zeros(2))

    criterion = Weighted([ReconstructionError(0.1)])
    step(criterion)
    assert {"weight", "offset", "steps"} <= set(criterion.state_dict())
    assert criterion.double().weight.dtype == criterion.offset.dtype == torch.float64
    fresh = Weighted([ReconstructionError(0.1)])
    state = criterion.state_dict()
    state["weight"] = torch.full((2,), 3.0)
    fresh.load_state_dict(state)
    assert (fresh.weight == 3.0).all()
    assert int(fresh.steps) == 1


def test_class_attributes_of_a_constraint_count():
    class Sharpness(geco_ext.Constraint):
        name = "edges"
        kappa = 0.25
        channels, rows = 3, 28  # a user's own names are the user's

        def forward(self, x_hat, x, labels=None):
            return x_hat.mean() - self.kappa

    sharpness = Sharpness()
    criterion = GECOLoss([sharpness, ReconstructionError(0.1)])
    assert criterion.names == ("edges", "reconstruction_error")
    assert criterion.kappa.tolist() == [0.25, 0.1]
    sharpness.kappa = 0.5
    assert criterion.kappa.tolist() == [0.5, 0.1]
    assert Sharpness(kappa=0.1).kappa == 0.1


def test_every_row_needs_a_name_of_its_own():
    with pytest.raises(ValueError, match="'a/0' more than once"):
        GECOLoss([ReconstructionError(0.1, channels=1, name="a"), ReconstructionError(0.1, name="a/0")])


def test_parts_of_a_network_put_into_training_mode_are_put_back():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    criterion = GECOLoss([geco_ext.FeatureReconstructionError(0.1, network)])
    network[1].train()
    running = network[1].running_mean.clone()
    x = torch.rand(2, 1, 8, 8)
    criterion(x, x, torch.zeros(()))
    assert torch.equal(running, network[1].running_mean)


def test_a_default_device_is_nothing_to_a_criterion_on_the_cpu():
    criterion = criterion_of(0.1)
    x = torch.rand(2, 1, 4, 4)
    with torch.device("meta"):
        loss = criterion(x, x, torch.zeros(2, device="cpu"))
        assert loss.device.type == "cpu"
    assert int(criterion.steps) == 1


def test_the_loss_has_the_type_of_the_images():
    class Wide(geco_ext.Constraint):
        def forward(self, x_hat, x, labels=None):
            return x_hat.double().mean() - 0.1

    criterion = GECOLoss([Wide()])
    for dtype, expected in ((torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.float64,) * 2):
        x_hat = torch.rand(2, 1, 4, 4, dtype=dtype, requires_grad=True)
        loss = criterion(x_hat, x_hat.detach(), torch.zeros(()))
        loss.backward()
        assert loss.dtype == expected
        assert x_hat.grad.dtype == dtype


def test_negated_views_are_read_with_their_sign():
    z = torch.complex(torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4))
    x_hat, x = z.conj().imag, torch.zeros(2, 1, 4, 4) + 0.3
    assert x_hat.is_neg()
    expected = float((x_hat - x).square().mean()) - 0.01
    criterion = criterion_of(0.1, multiplier_init=1.0)
    assert float(criterion(x_hat, x, torch.zeros(()))) == pytest.approx(expected, abs=1e-6)
    assert float(geco_ext.functional.reconstruction_error(x_hat, x, kappa=0.1)) == pytest.approx(expected, abs=1e-6)


def test_a_criterion_made_without_memory_is_whole_once_it_has_some():
    with torch.device("meta"):
        criterion = criterion_of(0.1, multiplier_bounds=(1.0, 5.0))
    criterion.to_empty(device="cpu")
    fresh = criterion_of(0.1, multiplier_bounds=(1.0, 5.0))
    assert torch.equal(criterion._block.nan_to_num(7.0), fresh._block.nan_to_num(7.0))
    step(criterion)
    assert float(criterion.multiplier) == pytest.approx(5.0)


@pytest.mark.skipif("cpu" not in geco_ext.available_backends(), reason="the C++ kernels are not built")
def test_a_refused_first_call_does_not_count_as_training():
    criterion = criterion_of(0.1)
    image = torch.rand([1] * 9)  # of more dimensions than the kernels take
    with geco_ext.use_backend("cpu"), pytest.raises(RuntimeError, match="cannot serve"):
        criterion(image, image, torch.zeros(()))
    assert criterion.multiplier.isnan().all()


def test_numpy_integers_are_integers():
    assert geco_ext.PatchNCC(0.9, np.int64(4)).patch_size == 4

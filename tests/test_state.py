"""The state of a criterion is what its buffers say, whoever has written them; and no call reads memory that is none."""

import copy
import io
import pickle
import warnings
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim.swa_utils import AveragedModel

from geco_ext import Constraint, GECOLoss, PatchNCC, ReconstructionError

B = 4


class Mine(Constraint):
    def forward(self, x_hat, x, labels=None):
        return (x_hat - x).abs().flatten(1).mean(1) - self.kappa


def images(seed=0, size=6):
    generator = torch.Generator().manual_seed(seed)
    x_hat, x = (torch.rand(B, 1, size, size, generator=generator) for _ in range(2))
    return x_hat.requires_grad_(), x, torch.rand(B, generator=generator).requires_grad_()


def trained(steps=3, constraints=None):
    criterion = GECOLoss(constraints or [ReconstructionError(0.1)])
    for step in range(steps):
        criterion(*images(step))
    return criterion


def state_of(criterion):
    return {name: row.clone() for name, row in criterion.state_dict().items()}


def assert_same_state(got, expected):
    assert got.keys() == expected.keys()
    for name in expected:
        assert torch.equal(got[name].nan_to_num(nan=7.0), expected[name].nan_to_num(nan=7.0)), name


class TestKappaOfAStateDict:
    """The state's holds; where the code asks for another one, that is said."""

    def saved(self, kappa):
        return trained(2, [ReconstructionError(kappa)]).state_dict()

    def said(self, criterion, saved, **options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            criterion.load_state_dict(saved, **options)
        assert torch.equal(criterion.kappa, saved["kappa"])
        return [str(warning.message) for warning in caught]

    def test_another_one_is_said_once_and_can_be_set_afterwards(self):
        criterion = GECOLoss([ReconstructionError(0.2), PatchNCC(0.9, 3)])
        saved = trained(2, [ReconstructionError(0.1), PatchNCC(0.9, 3)]).state_dict()
        (message,) = self.said(criterion, saved)
        assert "'reconstruction_error' has kappa=0.2 here and 0.1 in the state" in message
        assert "patch_ncc" not in message
        assert self.said(criterion, saved) == []
        criterion.constraints[0].kappa = 0.2
        assert float(criterion.kappa[0]) == criterion.constraints[0].kappa == 0.2

    def test_one_that_was_set_before_loading_is_lost_and_that_is_said(self):
        criterion = GECOLoss([ReconstructionError(0.1)])
        criterion.constraints[0].kappa = 0.2
        assert "kappa=0.2 here and 0.1 in the state" in self.said(criterion, self.saved(0.1))[0]

    def test_the_same_one_is_not_said(self):
        assert self.said(GECOLoss([ReconstructionError(0.1)]), self.saved(0.1)) == []
        criterion = GECOLoss([ReconstructionError(0.1)])
        criterion.constraints[0].kappa = 0.3
        assert self.said(criterion, self.saved(0.3)) == []
        rounded = self.saved(0.1)
        rounded["kappa"] = rounded["kappa"].float().double()
        assert self.said(GECOLoss([ReconstructionError(0.1)]), rounded) == []

    def test_going_back_to_an_earlier_state_of_a_schedule_is_not_said(self):
        criterion = trained(1)
        earlier = state_of(criterion)
        criterion.constraints[0].kappa = 0.05
        criterion(*images())
        assert self.said(criterion, earlier) == []

    def test_every_channel_has_the_one_of_its_constraint(self):
        saved = GECOLoss([ReconstructionError(0.1, channels=3)]).state_dict()
        (message,) = self.said(GECOLoss([ReconstructionError(0.2, channels=3)]), saved)
        assert message.count("kappa=0.2 here and 0.1 in the state") == 1

    def test_a_state_that_is_assigned_to_an_empty_criterion(self):
        with torch.device("meta"):
            criterion = GECOLoss([ReconstructionError(0.2)])
        (message,) = self.said(criterion.to("meta"), self.saved(0.1), assign=True)
        assert "kappa=0.2 here and 0.1 in the state" in message

    def test_it_points_at_the_line_that_loads(self):
        """However deep in a model the criterion is."""
        model, other = (
            torch.nn.Sequential(torch.nn.ModuleDict({"loss": GECOLoss([ReconstructionError(kappa)])}))
            for kappa in (0.1, 0.2)
        )
        with pytest.warns(UserWarning, match="kappa=0.1 here and 0.2 in the state") as caught:
            model.load_state_dict(other.state_dict())
        assert caught[0].filename == __file__


class TestInferenceMode:
    """What is made inside it, by whatever way, trains outside it."""

    @pytest.mark.parametrize(
        "made",
        [
            lambda criterion: criterion,
            copy.deepcopy,
            lambda criterion: pickle.loads(pickle.dumps(criterion)),
            lambda criterion: criterion.to("meta").to_empty(device="cpu"),
        ],
    )
    def test_it_trains(self, made):
        with torch.inference_mode():
            criterion = made(GECOLoss([ReconstructionError(0.1), Mine(0.1)]))
        expected = trained(2, [ReconstructionError(0.1), Mine(0.1)])
        for step in range(2):
            criterion(*images(step)).backward()
        assert_same_state(state_of(criterion), state_of(expected))
        criterion.constraints[1].kappa = 0.3
        criterion.load_state_dict(expected.state_dict())
        assert criterion.constraints[1].kappa == 0.1


class TestBuffers:
    @pytest.mark.parametrize("training", [True, False])
    def test_functional_call_acts_on_the_buffers_it_is_given(self, training):
        other, criterion = trained(5).train(training), trained(1).train(training)
        before = state_of(criterion)
        given = state_of(other)
        loss = functional_call(criterion, given, images(9))
        assert torch.equal(loss, other(*images(9)))
        assert_same_state(given, state_of(other))
        assert_same_state(state_of(criterion), before)

    def test_functional_call_of_a_users_constraint_sees_the_kappa_it_is_given(self):
        criterion = trained(1, [Mine(0.1)])
        kappa = torch.tensor([0.3], dtype=torch.float64)
        given = state_of(criterion) | {"kappa": kappa, "kappa_target": kappa.clone()}
        functional_call(criterion, given, images(9))
        expected = trained(1, [Mine(0.1)])
        expected.kappa = expected.kappa_target = 0.3
        expected(*images(9))
        assert_same_state(given, state_of(expected))
        assert criterion.constraints[0].kappa == 0.1

    def test_data_of_a_buffer(self):
        criterion, expected = trained(2), trained(2)
        criterion.log_multiplier.data = torch.tensor([1.5], dtype=torch.float64)
        expected.log_multiplier.fill_(1.5)
        assert torch.equal(criterion(*images(9)), expected(*images(9)))
        assert_same_state(state_of(criterion), state_of(expected))

    def test_memory_that_is_shared_with_another_process(self):
        """It moves under the tensors: what was saved before stays readable, and calls stay as quick as they were."""
        criterion, expected = trained(2), trained(2)
        before = criterion.state_dict()
        ForkingPickler.dumps(criterion)
        assert criterion._block.is_shared()
        assert torch.equal(criterion(*images(9)), expected(*images(9)))
        assert_same_state(state_of(criterion), state_of(expected))
        assert before["steps"] == 2
        assert criterion._buffers_are_views()

    def test_a_buffer_that_is_replaced(self):
        criterion, expected = trained(2), trained(2)
        criterion._buffers["moving_average"] = torch.full((1,), 0.25)  # of another type
        expected.moving_average.fill_(0.25)
        assert torch.equal(criterion(*images(9)), expected(*images(9)))
        torch.testing.assert_close(criterion._buffers["moving_average"].double(), expected.moving_average)

    def test_an_average_of_models_with_their_buffers(self):
        criterion = trained(3)
        averaged = AveragedModel(criterion, use_buffers=True)
        averaged.update_parameters(criterion)
        criterion(*images(7))
        averaged.update_parameters(criterion)
        buffers = dict(averaged.module.named_buffers())
        expected = GECOLoss([ReconstructionError(0.1)])
        expected.load_state_dict(buffers)
        assert torch.equal(averaged.module.eval()(*images(9)), expected.eval()(*images(9)))

    def test_buffers_that_are_copied_before_the_first_step(self):
        """As DistributedDataParallel and exponential averages do: the copy has seen no training call of its own."""
        source, target = trained(3), GECOLoss([ReconstructionError(0.1)])
        with torch.no_grad():
            for mine, theirs in zip(target.buffers(), source.buffers(), strict=True):
                mine.copy_(theirs)
        assert torch.equal(target.eval()(*images(9)), source.eval()(*images(9)))

    @pytest.mark.parametrize("write", ["copy", "assign", "load", "data"])
    def test_kappa_is_what_the_buffer_says(self, write):
        criterion = trained(1, [Mine(0.1)])
        new = torch.tensor([0.4], dtype=torch.float64)
        if write == "copy":
            criterion.kappa.copy_(new)
        elif write == "assign":
            criterion.kappa = new
        elif write == "load":
            criterion.load_state_dict(state_of(criterion) | {"kappa": new})
        else:
            criterion._block.data[3] = 0.4
            criterion.kappa.zero_().add_(0.4)
        assert criterion.constraints[0].kappa == pytest.approx(0.4)
        criterion.constraints[0].kappa = 0.2
        assert criterion.constraints[0].kappa == 0.2
        assert float(criterion.kappa) == 0.2

    def test_state_dict_shares_memory_and_can_be_saved(self):
        criterion = trained(2)
        state = criterion.state_dict()
        for name in ("log_multiplier", "moving_average", "violation", "kappa", "accumulated"):
            assert state[name].data_ptr() == getattr(criterion, name).data_ptr()
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        assert_same_state(torch.load(file), state_of(criterion))

    def test_from_the_meta_device(self):
        with torch.device("meta"):
            criterion = GECOLoss([ReconstructionError(0.1), Mine(0.2)])
        source = trained(3, [ReconstructionError(0.1), Mine(0.2)])
        criterion.load_state_dict(state_of(source), assign=True)
        assert torch.equal(criterion(*images(9)), source(*images(9)))
        assert_same_state(state_of(criterion), state_of(source))

    def test_construction_in_fake_tensor_mode(self):
        with FakeTensorMode():
            criterion = GECOLoss([ReconstructionError(0.1), PatchNCC(0.9, 3), Mine(0.2)])
            x_hat = torch.rand(B, 1, 6, 6, requires_grad=True)
            criterion(x_hat, torch.rand(B, 1, 6, 6), torch.rand(B)).backward()
            assert x_hat.grad.shape == x_hat.shape

    def test_a_copy_has_a_state_of_its_own(self):
        criterion = trained(2)
        copied = copy.deepcopy(criterion)
        criterion(*images(8))
        copied(*images(8))
        assert_same_state(state_of(copied), state_of(criterion))
        assert copied._block.data_ptr() != criterion._block.data_ptr()


def windows_and_errors():
    return GECOLoss([ReconstructionError(0.1), PatchNCC(0.9, 3)])


class TestMemory:
    def test_batched_gradients(self):
        x_hat, x, kl = images()
        incoming = torch.tensor([1.0, 2.0, -3.0])
        loss = windows_and_errors()(x_hat, x, kl)
        batched = torch.autograd.grad(loss, [x_hat, kl], incoming, is_grads_batched=True, retain_graph=True)
        for i, factor in enumerate(incoming):
            alone = torch.autograd.grad(loss, [x_hat, kl], factor, retain_graph=True)
            for got, expected in zip(batched, alone, strict=True):
                torch.testing.assert_close(got[i], expected)

    @pytest.mark.parametrize("kind", ["zero", "expanded", "negated"])
    def test_incoming_gradients_of_every_kind(self, kind):
        x_hat, x, kl = images()
        loss = windows_and_errors()(x_hat, x, kl)
        incoming, factor = {
            "zero": (torch._efficientzerotensor(()), 0.0),
            "expanded": (torch.ones(1).expand(3)[1], 1.0),
            "negated": (torch.tensor(2.0 + 3.0j).conj().imag, -3.0),
        }[kind]
        expected = torch.autograd.grad(loss, x_hat, torch.tensor(factor), retain_graph=True)[0]
        (got,) = torch.autograd.grad(loss, x_hat, incoming)
        torch.testing.assert_close(got, expected)

    def test_traced_gradients(self):
        criterion = windows_and_errors().eval()
        x_hat, x, kl = images()

        def gradient(x_hat, x, kl, incoming):
            x_hat = x_hat.detach().requires_grad_()
            loss = criterion(x_hat, x, kl)
            return torch.autograd.grad(loss, x_hat, incoming)[0]

        arguments = x_hat.detach(), x, kl.detach(), torch.tensor(3.0)
        traced = make_fx(gradient)(*arguments)
        torch.testing.assert_close(traced(*arguments), gradient(*arguments))
        other = images(5)[0].detach(), *arguments[1:]
        torch.testing.assert_close(traced(*other), gradient(*other))

    @pytest.mark.parametrize("which", ["x", "kl"])
    def test_a_subclass_beside_plain_tensors(self, which):
        """Every tensor of a call counts, not the reconstruction alone."""
        seen = []

        class Logged(torch.Tensor):
            @classmethod
            def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
                seen.append(str(function))
                unwrap = lambda t: t.plain if isinstance(t, Logged) else t  # noqa: E731
                return function(*torch.utils._pytree.tree_map(unwrap, args), **(kwargs or {}))

        def wrapped(tensor):
            made = torch.Tensor._make_wrapper_subclass(Logged, tensor.shape, dtype=tensor.dtype)
            made.plain = tensor
            return made

        x_hat, x, kl = images()
        expected = windows_and_errors()(x_hat, x, kl)
        arguments = {"x": x, "kl": kl.detach()}
        arguments[which] = wrapped(arguments[which])
        loss = windows_and_errors()(x_hat, **arguments)
        assert torch.equal(loss, expected)
        assert any("training_loss" in name for name in seen)

    @pytest.mark.parametrize("which", [0, 1, 2])
    def test_forward_mode_is_refused_before_the_state_moves(self, which):
        criterion = windows_and_errors()
        before = state_of(criterion)
        arguments = [tensor.detach() for tensor in images()]
        with forward_ad.dual_level():
            arguments[which] = forward_ad.make_dual(arguments[which], torch.ones_like(arguments[which]))
            with pytest.raises(RuntimeError, match="forward-mode"):
                criterion(*arguments)
        with pytest.raises(RuntimeError):
            torch.func.jvp(lambda x_hat: criterion(x_hat, *images()[1:]), (images()[0],), (images()[1],))
        assert_same_state(state_of(criterion), before)


def test_under_fake_tensors_a_state_dict_is_fake_as_a_whole():
    criterion = GECOLoss([ReconstructionError(0.1)])
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert {type(row) for row in criterion.state_dict().values()} == {FakeTensor}

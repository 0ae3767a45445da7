"""Calls in a mode that cannot be meant are said once, and all others are not."""

import copy
import pickle
import re
import warnings

import pytest
import torch
from torch.func import functional_call

import geco_ext
from geco_ext import GECOLoss, PatchNCC, ReconstructionError

EVAL = "in eval mode, in which multipliers do not move, .* call criterion.train"
TRAINING = "in training mode where no gradient is wanted, .* criterion.evaluate"


class Deviation(geco_ext.Constraint):
    def forward(self, x_hat, x):
        return (x_hat - x).abs().mean((1, 2, 3)) - self.kappa


@pytest.fixture(params=[ReconstructionError, lambda kappa: PatchNCC(kappa, 3), Deviation], ids=["re", "pncc", "own"])
def criterion(request):
    """Of images alone, which takes one call into C++, and of a user's own."""
    return GECOLoss(request.param(0.1))


def images(wants_gradient=True):
    return torch.rand(2, 1, 6, 6, requires_grad=wants_gradient), torch.rand(2, 1, 6, 6), torch.ones(2)


def validation(criterion, mode=torch.no_grad):
    with mode():
        criterion(*images(wants_gradient=False))


def assert_said(pattern, *calls):
    """By the first of the calls that has something to say, at the line of the caller, and by no other."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for call in calls:
            call()
    (warning,) = caught
    assert re.search(pattern, str(warning.message))
    assert warning.filename == __file__


def assert_silent(*calls):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in calls:
            call()


def test_training_in_eval_mode_is_said_once(criterion):
    """Also where the loop begins with a validation."""
    criterion.eval()
    assert_silent(lambda: validation(criterion), lambda: criterion.evaluate(*images()))
    assert_said(EVAL, *[lambda: criterion(*images()).backward()] * 2)
    assert int(criterion.steps) == 0


TRAINED = {
    "trained": lambda criterion: criterion(*images()),
    "compiled": lambda criterion: torch.compile(criterion, backend="aot_eager", fullgraph=True)(*images()),
    "loaded": lambda criterion: criterion.load_state_dict(copy.deepcopy(criterion).state_dict()),
}


@pytest.mark.parametrize("way", TRAINED)
def test_a_gradient_in_eval_mode_of_what_has_trained_is_nothing_to_say(criterion, way):
    TRAINED[way](criterion)
    for other in (criterion, copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert_silent(lambda other=other: other.eval()(*images()))


def test_a_state_that_is_called_with_is_not_the_criterions(criterion):
    trained = copy.deepcopy(criterion)
    trained(*images())
    criterion.eval()
    assert_silent(lambda: functional_call(criterion, trained.state_dict(), images()))


def test_of_an_old_pickle_nothing_is_known(criterion):
    old = criterion.__getstate__()
    del old["_remarks"]
    restored = GECOLoss.__new__(GECOLoss)
    restored.__setstate__(old)
    assert_silent(lambda: restored.eval()(*images()))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_validation_in_training_mode_is_said_once(criterion, mode):
    """Also after steps of training in the same mode, as of a loop that puts its model alone into eval mode."""
    assert_silent(lambda: criterion(*images()).backward())
    assert_said(TRAINING, *[lambda: validation(criterion, mode)] * 2)
    assert int(criterion.steps) == 3  # they move it all the same


def test_what_moves_multipliers_on_purpose_is_nothing_to_say(criterion):
    def of_a_model_that_has_a_gradient():
        with torch.no_grad():
            criterion(*images())

    assert_silent(
        of_a_model_that_has_a_gradient,
        lambda: criterion(*images(wants_gradient=False)),  # a model that is frozen
        lambda: validation(criterion.eval()),
    )


def test_lightnings_validation_before_training_is_nothing_to_say(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Training(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.criterion, self.shift = GECOLoss(ReconstructionError(0.1)), torch.nn.Parameter(torch.zeros(()))
            self.validated_at = []

        def training_step(self, batch, index):
            (x,) = batch
            return self.criterion(x + self.shift, x, self.shift.square())

        def validation_step(self, batch, index):
            self.validated_at.append(int(self.criterion.steps))
            self.training_step(batch, index)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.rand(4, 1, 6, 6)), batch_size=2)
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    module = Training()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, **quiet)
        trainer.fit(module, batches, batches)
    assert module.validated_at == [0, 0, 2, 2, 4, 4]
    assert not [warning for warning in caught if "the criterion is called" in str(warning.message)]

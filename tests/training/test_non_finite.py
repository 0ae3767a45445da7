"""A training that cannot take a step ends with the reason; one that skips some goes on and counts them."""

import math
from types import SimpleNamespace

import pytest
import torch
from tiny_runs import TINY_OPTIONS, tiny_settings

import geco_ext
from geco_ext.cli import main
from geco_ext.training import session as sessions
from geco_ext.training.non_finite import NonFiniteTraining, first_cause
from geco_ext.training.run_folder import read_history
from geco_ext.training.session import start


def fill(session, value):
    """Write into every image, after what is checked at the start."""
    session.dataset._images.pixels[:, 0, 0, 0] = value


def replace_output(session, **changes):
    forward = session.module.model.forward

    def changed(*arguments, **options):
        output = forward(*arguments, **options)
        found = {"x_hat": output.x_hat, "kl": output.kl}
        return SimpleNamespace(**{name: value * changes.get(name, 1.0) for name, value in found.items()})

    session.module.model.forward = changed


CAUSES = {
    "NaN in the data": (
        lambda session: fill(session, math.nan),
        r"the data \(x\) have 500 of 32000 numbers that are not",
    ),
    "data out of range": (
        lambda session: fill(session, 1e30),
        r"the data \(x\) are outside \[0, 1\], from 0 to 1e\+30",
    ),
    "output": (
        lambda session: replace_output(session, x_hat=math.nan),
        r"the model's output \(x_hat\) has 32000 of 32000",
    ),
    "kl": (lambda session: replace_output(session, kl=math.inf), r"the model's kl has 500 of 500"),
}


@pytest.mark.parametrize("case", CAUSES)
def test_ten_steps_in_a_row_end_the_training_with_their_first_cause(tmp_path, case):
    break_it, message = CAUSES[case]
    session = start(tiny_settings(steps=30, constraints=("re=0.3",)), tmp_path / "run")
    before = [parameter.detach().clone() for parameter in session.module.model.parameters()]
    break_it(session)
    with pytest.raises(NonFiniteTraining, match=f"ended at step 10: 10 steps in a row .*first cause: {message}"):
        session.train()
    for parameter, value in zip(session.module.model.parameters(), before, strict=True):
        assert torch.equal(parameter.detach().cpu(), value)


def test_fewer_in_a_row_are_counted_and_the_training_goes_on(tmp_path):
    session = start(tiny_settings(steps=30, constraints=("re=0.3",)), tmp_path / "run")
    training_step = session.module.training_step

    def nine_of_ten(batch, index=0):
        if session.trainer.global_step % 10 != 9:
            batch = {**batch, "x": batch["x"] * math.nan}
        return training_step(batch, index)

    session.module.training_step = nine_of_ten
    session.train()
    assert int(session.module.skipped_steps) == 27
    assert read_history(tmp_path / "run" / "metrics.csv")["skipped_steps"] == [1, 9, 18, 27]


def test_the_command_ends_with_one_line(tmp_path, capsys, monkeypatch):
    def broken(settings):
        dataset = geco_ext.data.load("digits", size=8)
        return geco_ext.data.ImageDataset(dataset.images * math.nan, dataset.labels)

    monkeypatch.setattr(sessions, "_training_set", broken)
    assert main(["train", *TINY_OPTIONS, "--steps", "30", "--out", str(tmp_path / "run")]) == 2
    captured = capsys.readouterr()
    assert "first cause: the data (x) have 32000 of 32000 numbers that are not finite" in captured.err
    assert captured.err.splitlines()[-1].startswith("geco: error: ")


def test_pixels_without_weight_are_no_cause(tmp_path):
    session = start(tiny_settings(constraints=("re=0.3",)), tmp_path / "run")
    batch = session.dataset[:4]
    batch["weight"] = torch.ones_like(batch["x"], dtype=torch.bool)
    batch["weight"][:, :, 0] = False
    batch["x"][:, :, 0] = 7.0
    assert first_cause(session.module, batch) == (
        7,
        "the gradient of the loss; data, model output, kl and constraints are finite",
    )
    assert "outside [0, 1]" in first_cause(session.module, {**batch, "weight": None})[1]

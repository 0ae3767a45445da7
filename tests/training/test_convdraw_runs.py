"""Runs of a model that is conditional where the data have a context, and not where they have none."""

import pytest
import torch
from tiny_runs import tiny_settings

import geco_ext
import geco_ext.data
from geco_ext.cli import main
from geco_ext.data import ImageDataset
from geco_ext.models import ConvDraw
from geco_ext.training.report import write_report
from geco_ext.training.session import start

TINY_CONVDRAW = {"steps": 2, "hidden": 4, "latent": 1, "downsampling": 2, "shared": 0}


def finished(path, **changes):
    session = start(tiny_settings(model="convdraw", model_options=TINY_CONVDRAW, steps=3, **changes), path)
    seconds = session.train()
    write_report(session.folder, session.module, session.dataset, session.configuration.settings, seconds)
    return session


@pytest.fixture
def digits_with_context(monkeypatch):
    """Digits whose context is their mirror image."""
    images = geco_ext.data.load("digits", size=8)[:600]["x"]
    dataset = ImageDataset(images, torch.zeros(600, dtype=torch.int64), images.flip(-1))
    monkeypatch.setattr(geco_ext.data, "load", lambda *_, **__: dataset)


def test_without_context_the_model_is_not_conditional(tmp_path):
    finished(tmp_path / "run")
    model = geco_ext.load_run(tmp_path / "run").model
    assert isinstance(model, ConvDraw)
    assert model.context_shape is None
    assert (tmp_path / "run" / "samples.png").is_file()
    assert_drawn(tmp_path)


@pytest.mark.usefixtures("digits_with_context")
def test_with_a_context_it_is(tmp_path):
    finished(tmp_path / "run")
    model = geco_ext.load_run(tmp_path / "run").model
    assert model.context_shape == (1, 8, 8)
    assert (tmp_path / "run" / "samples.png").is_file()
    assert_drawn(tmp_path)


def assert_drawn(folder):
    for command in ("sample", "reconstruct"):
        file = folder / f"{command}.png"
        assert main([command, str(folder / "run"), "-n", "3", "--out", str(file)]) == 0
        assert file.is_file()


def test_options_the_model_refuses_are_refused_before_training(tmp_path):
    for options, message in (
        ({"downsampling": 3}, "downsampling: got 3, expected 2 or 4"),
        ({"depth": 3}, "model 'convdraw' has no option 'depth'"),
    ):
        with pytest.raises(ValueError, match=message):
            start(tiny_settings(model="convdraw", model_options=options), tmp_path / "run")
    with pytest.raises(ValueError, match=r"image_shape: got \(1, 9, 9\), expected height and width divisible by 4"):
        start(tiny_settings(model="convdraw", model_options={}, size=9), tmp_path / "run")
    assert not (tmp_path / "run").exists()

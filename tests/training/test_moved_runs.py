"""Runs that are taken elsewhere, with the files they name or without."""

import shutil

import numpy as np
import pytest
from tiny_runs import TINY_OPTIONS, one_line

import geco_ext
from geco_ext.cli import main
from geco_ext.training.moved import found_again
from geco_ext.training.run_folder import RunFolder
from geco_ext.training.session import resume
from geco_ext.training.settings import TrainingSettings

CODE = """
import geco_ext
class Mine(geco_ext.Constraint):
    def forward(self, x_hat, x, labels=None):
        return (x_hat - x).abs().mean((1, 2, 3)) - self.kappa
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with data, code and a run of both."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "code").mkdir()
    (folder / "code" / "mine.py").write_text(CODE)
    np.save(folder / "images.npy", np.random.default_rng(0).random((24, 8, 8)))
    asked = ["--data", f"npy:{folder}/images.npy", "--constraint", f"{folder}/code/mine.py:Mine(0.3)"]
    options = [*TINY_OPTIONS, "--batch-size", "8", "--steps", "2", "--quiet"]
    assert main(["train", *options, *asked, "--out", str(folder / "runs" / "x")]) == 0
    return folder


@pytest.fixture
def moved(project, tmp_path):
    """The folder at another place; at the first one it is gone."""
    shutil.copytree(project, tmp_path / "elsewhere")
    away = project.with_name("away")
    project.rename(away)
    yield tmp_path / "elsewhere"
    away.rename(project)


def test_a_run_that_is_moved_with_its_files_resumes(moved):
    run = moved / "runs" / "x"
    assert main(["train", "--resume", str(run), "--steps", "4", "--quiet"]) == 0
    settings = RunFolder(run).read_configuration().settings
    assert settings.data == f"npy:{moved}/images.npy"
    assert settings.constraints == (f"{moved}/code/mine.py:Mine(0.3)",)
    assert geco_ext.load_run(run, trust=True).step == 4
    assert main(["reconstruct", str(run), "-n", "2", "--trust"]) == 0


def test_root_says_where_the_data_are_now(moved, tmp_path, capsys):
    run, data = moved / "runs" / "x", tmp_path / "data.npy"
    (moved / "images.npy").rename(data)
    capsys.readouterr()
    assert main(["train", "--resume", str(run), "--steps", "3", "--quiet"]) == 2
    assert "images.npy" in one_line(capsys.readouterr())
    assert main(["train", "--resume", str(run), "--steps", "3", "--quiet", "--root", str(data)]) == 0
    assert RunFolder(run).read_configuration().settings.data == f"npy:{data}"


def test_what_is_still_there_is_what_is_meant(project, tmp_path):
    shutil.copytree(project, tmp_path / "copy")
    session = resume(tmp_path / "copy" / "runs" / "x")
    assert session.configuration.settings.data == f"npy:{project}/images.npy"


def test_paths_that_are_nowhere_stay_for_the_error_to_name(tmp_path):
    settings = TrainingSettings(data="folder:/gone/images", root="/gone", constraints=("cla=0.9:/gone/conv.pt",))
    assert found_again(settings, tmp_path / "before" / "run", tmp_path / "now" / "run") == settings
    (tmp_path / "now" / "conv.pt").mkdir(parents=True)
    settings = TrainingSettings(constraints=(f"cla=0.9:{tmp_path}/before/conv.pt",))
    found = found_again(settings, tmp_path / "before" / "run", tmp_path / "now" / "run")
    assert found.constraints == (f"cla=0.9:{tmp_path}/now/conv.pt",)


@pytest.mark.parametrize("shape", [(25, 8, 8), (24, 3, 8, 8)])
def test_data_that_have_changed_are_not_trained_on_any_further(project, tmp_path, capsys, shape):
    """Held-out examples might be among those that were trained on."""
    shutil.copytree(project, tmp_path / "elsewhere")
    np.save(tmp_path / "other.npy", np.random.default_rng(0).random(shape))
    run = tmp_path / "elsewhere" / "runs" / "x"
    before = RunFolder(run).configuration_file.read_text()
    assert main(["train", "--resume", str(run), "--root", str(tmp_path / "other.npy"), "--steps", "3"]) == 2
    message = one_line(capsys.readouterr())
    assert "have changed: a resumed run keeps its 22 training examples of shape (1, 8, 8), found" in message
    assert RunFolder(run).configuration_file.read_text() == before

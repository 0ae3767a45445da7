import sys
import textwrap

import pytest
import torch
from tiny_runs import TINY_OPTIONS, one_line, tiny_settings

import geco_ext
from geco_ext.cli import main
from geco_ext.training.models import as_output, build_model
from geco_ext.training.session import resume, start

OPTIONS = TINY_OPTIONS[:8]  # without the options of a model
CODE = """
    import geco_ext
    import torch
    from torch import nn

    class Plain(nn.Module):
        def __init__(self, image_shape, latent=3):
            super().__init__()
            self.shape = image_shape
            elements = image_shape[0] * image_shape[1] * image_shape[2]
            self.encoder, self.decoder = nn.Linear(elements, 2 * latent), nn.Linear(latent, elements)

        def forward(self, x):
            mean, log_std = self.encoder(x.flatten(1)).chunk(2, 1)
            kl = 0.5 * (mean.square() + (2 * log_std).exp() - 2 * log_std - 1).sum(1)
            x_hat = self.decoder(mean + log_std.exp() * torch.randn_like(mean)).sigmoid()
            return {"x_hat": x_hat.view_as(x), "kl": kl}

    class Sampling(Plain):
        def forward(self, x, context=None):
            assert context is not None
            output = super().forward(x)
            return output["x_hat"], output["kl"]

        def sample(self, n, context):
            z = torch.randn(n, self.decoder.in_features)
            return self.decoder(z).sigmoid().view(n, *self.shape)

    class NoShape(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.5))

        def forward(self, x):
            return x * self.scale, x.new_zeros(len(x))

    class NoKL(NoShape):
        def forward(self, x):
            return {"x_hat": x * self.scale}

    class WrongKL(NoShape):
        def forward(self, x):
            return x * self.scale, torch.zeros(len(x), 5)

    class Fails(NoShape):
        def forward(self, x):
            raise RuntimeError("no way")

    class NoParameters(nn.Module):
        pass

    class Half(geco_ext.GECOLoss):
        def forward(self, *arguments, **named):
            return 0.5 * super().forward(*arguments, **named)

    from geco_ext.training.objectives import GaussianObjective
    class Narrow(GaussianObjective):
        def __init__(self):
            super().__init__(sigma=0.1)
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    file = tmp_path_factory.mktemp("code") / "mine.py"
    file.write_text(textwrap.dedent(CODE))
    return file


@pytest.fixture(scope="module")
def trained(code, tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", *OPTIONS, "--steps", "3", "--out", str(path), "--model", f"{code}:Plain(latent=2)"]) == 0
    return path


def test_a_model_of_ones_own_trains_without_a_picture_of_samples(trained):
    files = {file.name for file in trained.iterdir()}
    assert "reconstructions.png" in files
    assert "samples.png" not in files


def test_its_run_is_loaded_where_it_is_trusted(trained, code, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"code of its own, .*mine\.py:Plain\(latent=2\); trust=True"):
        geco_ext.load_run(trained)
    run = geco_ext.load_run(trained, trust=True)
    assert run.model.decoder.in_features == 2
    picture = tmp_path / "reconstructions.png"
    assert main(["reconstruct", str(trained), "-n", "2", "--out", str(picture)]) == 2
    assert "--trust" in one_line(capsys.readouterr())
    assert main(["reconstruct", str(trained), "-n", "2", "--out", str(picture), "--trust"]) == 0
    assert picture.is_file()
    capsys.readouterr()
    assert main(["sample", str(trained), "--trust"]) == 2
    assert "has no method sample" in one_line(capsys.readouterr())


def test_a_module_of_the_current_folder(code, tmp_path, monkeypatch):
    (tmp_path / "vae_of_mine.py").write_text(code.read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    assert main(["train", *OPTIONS, "--steps", "1", "--model", "vae_of_mine:Plain", "--quiet"]) == 0
    run = tmp_path / "runs" / "Plain-digits"
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    monkeypatch.delitem(sys.modules, "vae_of_mine")
    assert main(["reconstruct", str(run), "-n", "1", "--trust"]) == 0
    assert (run / "config.yaml").is_file()


def test_it_resumes_from_any_folder(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session = resume(trained, steps=3)
    session.train()
    assert session.trainer.global_step == 3


def test_its_arguments_and_options_and_the_shape_of_images(code):
    assert build_model(f"{code}:Plain", (1, 8, 8)).decoder.in_features == 3
    assert build_model(f"{code}:Plain(4)", (1, 8, 8)).decoder.in_features == 4
    assert build_model(f"{code}:Plain", (1, 8, 8), None, {"latent": 5}).decoder.in_features == 5
    assert build_model(f"{code}:NoShape", (1, 8, 8)).scale == 0.5


def test_a_forward_with_a_context_is_given_that_of_the_data(code, tmp_path):
    settings = tiny_settings(model=f"{code}:Sampling", model_options={}, data="digits-sum", steps=1)
    session = start(settings, tmp_path / "run")
    assert session.module.takes_context
    session.train()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("mine.py", "unknown model 'mine.py'; known are nvp, convdraw, unconditional-convdraw, and a class"),
        ("{code}:Nope", "has no torch.nn.Module subclass 'Nope'"),
        ("no.module:Nope", "cannot import 'no.module'"),
        ("{code}:Plain(depth=3)", "cannot be made (TypeError"),
        ("{code}:NoParameters", "has no parameters to train"),
        ("{code}:NoKL", "forward gave a dict of 'x_hat'; a model's forward(x) takes images"),
        ("{code}:WrongKL", "kl is a tensor of shape (2, 5) for 2 images; a model's forward(x)"),
        ("{code}:Fails", "cannot be trained on images of shape (1, 8, 8): RuntimeError: no way"),
    ],
)
def test_what_a_model_lacks_is_one_line_and_leaves_no_folder(code, tmp_path, capsys, model, message):
    path = tmp_path / "run"
    assert main(["train", *OPTIONS, "--out", str(path), "--model", model.format(code=code)]) == 2
    assert message in one_line(capsys.readouterr())
    assert not path.exists()


def test_what_a_model_returns_has_its_parts_by_name():
    x_hat, kl = torch.zeros(2, 1, 8, 8), torch.ones(2)
    for returned in ((x_hat, kl), [x_hat, kl, None], {"kl": kl, "x_hat": x_hat, "more": 1}):
        output = as_output(returned)
        assert output.x_hat is x_hat
        assert output.kl is kl


def test_an_objective_of_ones_own_with_constraints(code, tmp_path):
    """Its constraints come first; without any it has the usual one, as GECO has."""
    path = tmp_path / "run"
    start(tiny_settings(objective=f"{code}:Half(alpha=0.5)", steps=2, multiplier_init="7"), path).train()
    run = geco_ext.load_run(path, trust=True)
    assert type(run.criterion).__name__ == "Half"
    assert (run.criterion.alpha, run.config.constraints) == (0.5, ("re=0.1",))
    with pytest.warns(UserWarning, match="the criterion is left out, it is code of the run's own"):
        assert geco_ext.load_run(path).criterion is None


def test_an_objective_of_ones_own_without_constraints(code, tmp_path, capsys):
    path = tmp_path / "run"
    asked = ["--objective", f"{code}:Narrow"]
    assert main(["train", *TINY_OPTIONS, "--out", str(path), "--steps", "2", *asked]) == 0
    run = geco_ext.load_run(path, trust=True)
    assert run.config.constraints == ()
    assert float(run.criterion.sigma) == pytest.approx(0.1)
    capsys.readouterr()
    for more in (["--constraint", "re=0.1"], ["--multiplier-init", "3"]):
        assert main(["train", *TINY_OPTIONS, "--out", str(tmp_path / "other"), *asked, *more]) == 2
        assert "cannot be given, since it is no GECOLoss" in one_line(capsys.readouterr())

import sys
import textwrap

import numpy as np
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

    class Embedding(Plain):
        def sample(self, n):
            return self.decode(torch.randn(n, self.decoder.in_features))

        def embed(self, x):
            return self.encoder(x.flatten(1)).chunk(2, 1)[0]

        def decode(self, z):
            return self.decoder(z).sigmoid().view(len(z), *self.shape)

        def interpolate(self, a, b, steps):
            codes = self.embed(a), self.embed(b)
            return torch.stack([self.decode(torch.lerp(*codes, index / (steps - 1))) for index in range(steps)])

    class WrongCodes(Embedding):
        def embed(self, x):
            return super().embed(x)[..., None]

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


def test_what_it_will_not_serve_is_said_before_it_trains(code, tmp_path, capsys):
    start_of = ["train", *OPTIONS, "--steps", "1", "--quiet"]
    assert main([*start_of, "--out", str(tmp_path / "a"), "--model", f"{code}:Plain"]) == 0
    assert capsys.readouterr().err == (
        "geco: warning: Plain will not serve geco sample (it would call sample(n)), geco encode (it would call "
        "embed(x)), geco interpolate (it would call interpolate(a, b, steps))\n"
    )
    assert main([*start_of, "--out", str(tmp_path / "b"), "--model", f"{code}:Embedding"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["train", *TINY_OPTIONS, "--steps", "1", "--quiet", "--out", str(tmp_path / "c")]) == 0
    assert capsys.readouterr().err == ""


def test_latents_and_ways_by_its_own_methods(code, tmp_path, capsys):
    run, file = tmp_path / "run", tmp_path / "latents.npz"
    start(tiny_settings(model=f"{code}:Embedding", model_options={}, steps=1), run).train()
    encode = ["encode", str(run), "--split", "test", "--out", str(file), "--trust"]
    assert main(encode) == 0
    x = geco_ext.data.load("digits", "test", size=8)[:]["x"]
    with np.load(file) as saved:
        expected = geco_ext.load_run(run, trust=True).model.embed(x).detach()
        torch.testing.assert_close(torch.from_numpy(saved["latents"]), expected)
    assert main(["interpolate", str(run), "0", "1", "--trust", "--out", str(tmp_path / "way.png")]) == 0
    capsys.readouterr()
    assert main([*encode, "--samples", "3"]) == 2
    assert "samples: got 3, and embed of the run's model Embedding takes none" in one_line(capsys.readouterr())


@pytest.mark.parametrize(
    ("model", "command", "message"),
    [
        ("Plain", ["encode"], "the run's model Plain has no method embed(x)"),
        ("Plain", ["interpolate", "0", "1"], "the run's model Plain has no method interpolate(a, b, steps)"),
        (
            "WrongCodes",
            ["encode"],
            "embed of the run's model WrongCodes gave a tensor of shape (250, 3, 1) for 250 images",
        ),
    ],
)
def test_latents_that_a_model_does_not_have(code, tmp_path, capsys, model, command, message):
    run = tmp_path / "run"
    start(tiny_settings(model=f"{code}:{model}", model_options={}, steps=1), run).train()
    capsys.readouterr()
    assert main([command[0], str(run), *command[1:], "--trust"]) == 2
    assert message in one_line(capsys.readouterr())


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
        ("mine.py", "model 'mine.py': no file mine.py"),
        ("{code}", "name the class, {code}:Class; its classes are "),
        ("{code}:Plain(latent=3", "a bracket is not closed; did you mean '{code}:Plain(latent=3)'?"),
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
    assert message.format(code=code) in one_line(capsys.readouterr())
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

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import fields

import numpy as np
import pytest
import torch
from tiny_runs import TINY_OPTIONS, assert_same_end, one_line, tiny_settings, train_until

import geco_ext
from geco_ext.cli import main
from geco_ext.training.run_folder import RunFolder
from geco_ext.training.session import resume, start
from geco_ext.training.settings import ClassifierSettings, TrainingSettings

COMMAND = [sys.executable, "-c", "import sys; from geco_ext.cli import main; sys.exit(main())"]


def train(path, *options):
    return main(["train", *TINY_OPTIONS, "--out", str(path), *options])


def last_checkpoint(path):
    folder = RunFolder(path)
    return folder.read_checkpoint(folder.last_checkpoint)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "run"
    assert train(path, "--steps", "40", "--constraint", "re=0.3", "--constraint", "pncc=0.2:4") == 0
    return path


def test_a_run_leaves_results_and_pictures(trained):
    files = {file.name for file in trained.iterdir()}
    pictures = {"trajectory.png", "reconstructions.png", "samples.png"}
    assert (
        files >= {"config.json", "metrics.csv", "results.json", "results.md", "checkpoints", "tensorboard"} | pictures
    )
    for name in pictures:
        assert (trained / name).read_bytes().startswith(b"\x89PNG")
    results = json.loads((trained / "results.json").read_text())
    assert results["steps"] == 40
    assert [row["name"] for row in results["constraints"]] == ["reconstruction_error", "patch_ncc"]
    first = results["constraints"][0]
    assert first["reached"] == pytest.approx(results["rmse"], rel=1e-6)
    assert first["deviation_percent"] == pytest.approx(100 * (results["rmse"] / 0.3 - 1), abs=1e-4)
    assert "| reconstruction_error |" in (trained / "results.md").read_text()


def test_the_table_is_printed_at_the_end(tmp_path, capsys):
    assert train(tmp_path / "run", "--steps", "3", "--constraint", "re=0.3") == 0
    output = capsys.readouterr().out
    assert "kappa asked" in output
    assert "0.3" in output
    assert str(tmp_path / "run") in output


def test_a_multiplier_resting_on_its_bound_is_said(tmp_path, capsys):
    assert train(tmp_path / "run", "--steps", "40", "--constraint", "re=0.01") == 0
    assert "reconstruction_error rests on its upper bound" in capsys.readouterr().out


def test_load_run_gives_the_run_back(trained):
    run = geco_ext.load_run(trained)
    checkpoint = last_checkpoint(trained)["state_dict"]
    assert run.step == run.config.steps == 40
    assert run.config.constraints == ("re=0.3", "pncc=0.2:4")
    assert torch.equal(run.criterion.log_multiplier, checkpoint["criterion.log_multiplier"])
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, checkpoint[f"model.{name}"])
    assert not run.model.training
    assert run.model.sample(3).shape == (3, 1, 8, 8)
    x = torch.rand(2, 1, 8, 8)
    output = run.model(x)
    assert torch.isfinite(run.criterion(output.x_hat, x, output.kl))


def test_load_run_leaves_the_random_state_alone(trained):
    before = torch.get_rng_state()
    geco_ext.load_run(trained)
    assert torch.equal(before, torch.get_rng_state())


def test_load_run_says_what_is_missing(tmp_path, trained):
    with pytest.raises(FileNotFoundError, match="no run in"):
        geco_ext.load_run(tmp_path)
    (tmp_path / "config.json").write_text((trained / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*last\.ckpt"):
        geco_ext.load_run(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        geco_ext.load_run(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "nope"], "unknown model 'nope'; known are nvp, convdraw, unconditional-convdraw"),
        (["--data", "nope"], "unknown data set 'nope'; known are digits, patches"),
        (["--constraint", "nope=1"], "unknown constraint 'nope=1'; known are re, pncc"),
        (["--constraint", "pncc=0.9:9"], "patch_size: got 9"),
        (["--steps", "0"], "steps must be an integer of at least 1, got 0"),
        (["--steps", "many"], "Invalid value for '--steps'"),
        (["--learning-rate", "-1"], "learning rate must be a positive number"),
        (["--batch-size", "5000"], "batch size must be at most the 1500 training examples"),
        (["--size", "5"], "image_shape"),
        (["--accelerator", "nope"], "accelerator 'nope'"),
        (["--model-option", "latent=many"], "model option must be NAME=INTEGER"),
        (["--model-option", "nope=1"], "model 'nvp' has no option 'nope'; it takes latent=24, flows=4"),
        (["--nope"], "No such option"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_no_folder(tmp_path, capsys, options, message):
    path = tmp_path / "run"
    assert train(path, *options) == 2
    assert message in one_line(capsys.readouterr())
    assert not path.exists()


def test_every_setting_is_an_option_with_its_help_and_default(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    for command, settings in (("train", TrainingSettings), ("train-classifier", ClassifierSettings)):
        assert main([command, "--help"]) == 0
        shown = capsys.readouterr().out
        for setting in fields(settings):
            assert setting.metadata.get("flag", "--" + setting.name.replace("_", "-")) in shown
            assert setting.metadata["help"][:60] in shown
            assert (setting.metadata["shown"] or "") in shown


def test_an_existing_run_is_not_overwritten(trained, capsys):
    before = (trained / "checkpoints" / "last.ckpt").read_bytes()
    assert train(trained) == 2
    assert f"already holds a run; continue it with --resume {trained}" in one_line(capsys.readouterr())
    assert (trained / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert train(tmp_path / "file" / "run") == 2
    assert "cannot be written" in one_line(capsys.readouterr())
    assert train(tmp_path / "file") == 2
    assert "exists and is not empty" in one_line(capsys.readouterr())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert train(tmp_path / "run") == 2
    assert "cannot be written" in one_line(capsys.readouterr())


def test_resuming_wrongly_is_one_line(tmp_path, trained, capsys):
    for arguments, message in (
        ([str(tmp_path)], "no run in"),
        ([str(trained), "--constraint", "re=0.1", "--seed", "3"], "leave out: constraints, seed"),
        ([str(trained), "--out", "elsewhere"], "leave out: out"),
        ([str(trained), "--steps", "7"], "steps must be at least the 40 steps done"),
        ([str(trained / "checkpoints" / "step_00000007.ckpt")], "no checkpoint"),
    ):
        assert main(["train", "--resume", *arguments]) == 2
        assert message in one_line(capsys.readouterr())


def test_a_constraint_of_ones_own_trains(tmp_path):
    (tmp_path / "own.py").write_text(
        textwrap.dedent("""
        import geco_ext

        class Brightness(geco_ext.Constraint):
            def forward(self, x_hat, x, labels=None):
                return (x_hat.mean((1, 2, 3)) - x.mean((1, 2, 3))).square() - self.kappa**2
        """)
    )
    path = tmp_path / "run"
    assert (
        train(path, "--steps", "5", "--constraint", "re=0.3", "--constraint", f"{tmp_path}/own.py:Brightness=0.1") == 0
    )
    assert geco_ext.load_run(path, trust=True).criterion.names == ("reconstruction_error", "brightness")


def test_load_run_imports_no_code_without_trust(tmp_path):
    """Of the criterion the other constraints remain, with their multipliers."""
    own = tmp_path / "own.py"
    own.write_text(
        textwrap.dedent("""
        import geco_ext

        class Contrast(geco_ext.Constraint):
            def __init__(self):
                super().__init__()
                self.register_buffer("calls", geco_ext.criterion.torch.zeros(()))

            def forward(self, x_hat, x, labels=None):
                return (x_hat.std((1, 2, 3)) - x.std((1, 2, 3))).square() - 0.01
        """)
    )
    path = tmp_path / "run"
    texts = ["re=0.3", f"{own}:Contrast", "pncc=0.2:4"]
    assert train(path, "--steps", "5", *(part for text in texts for part in ("--constraint", text))) == 0
    whole = geco_ext.load_run(path, trust=True)
    own.write_text("raise SystemExit('imported')")
    with pytest.warns(UserWarning, match=r"own\.py:Contrast is left out of the criterion: trust=True"):
        run = geco_ext.load_run(path)
    assert run.criterion.names == ("reconstruction_error", "patch_ncc")
    for name in ("log_multiplier", "moving_average", "kappa", "violation", "accumulated"):
        assert torch.equal(getattr(run.criterion, name), getattr(whole.criterion, name)[[0, 2]])
    assert run.criterion.steps == 5
    assert all(map(torch.equal, run.model.state_dict().values(), whole.model.state_dict().values()))


@pytest.mark.parametrize(
    ("objective", "texts", "why"),
    [
        ("GECOLoss(multiplier_init=[1.0, 2.0])", ["{own}:One", "re=0.1"], "got 2 entries"),
        ("geco", ["{own}:Channels(0.1, channels=3)", "re=0.1", "{own}:One"], "whose its 5 rows are"),
    ],
)
def test_load_run_gives_no_criterion_whose_rows_cannot_be_told_apart(tmp_path, objective, texts, why):
    own = tmp_path / "own.py"
    own.write_text(
        "import geco_ext\nclass Channels(geco_ext.ReconstructionError):\n    pass\n"
        "class One(geco_ext.Constraint):\n    def forward(self, x_hat, x, labels=None):\n"
        "        return (x_hat - x).abs().mean((1, 2, 3)) - 0.1\n"
    )
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((24, 3, 8, 8)))
    asked = [part for text in texts for part in ("--constraint", text.format(own=own))]
    path = tmp_path / "run"
    options = ["--data", f"npy:{tmp_path}/images.npy", "--batch-size", "8", "--objective", objective]
    assert train(path, "--steps", "1", *asked, *options) == 0
    with pytest.warns(UserWarning, match=f"with it the criterion .*{why}"):
        run = geco_ext.load_run(path)
    assert run.criterion is None
    assert run.model.sample(2).shape == (2, 3, 8, 8)


def test_load_run_leaves_a_criterion_out_that_is_all_ones_own(tmp_path):
    (tmp_path / "own.py").write_text(
        "import geco_ext\nclass Mine(geco_ext.Constraint):\n"
        "    def forward(self, x_hat, x, labels=None):\n        return (x_hat - x).abs().mean((1, 2, 3)) - 0.1\n"
    )
    path = tmp_path / "run"
    assert train(path, "--steps", "2", "--constraint", f"{tmp_path}/own.py:Mine") == 0
    with pytest.warns(UserWarning, match="left out of the criterion"):
        assert geco_ext.load_run(path).criterion is None


def test_info_and_version(capsys):
    assert main(["info"]) == 0
    output = capsys.readouterr().out
    for expected in ("geco-ext", "torch", "CPU threads", "reference", "compiled CUDA architectures"):
        assert expected in output
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"geco {geco_ext.__version__}\n"


def test_a_failing_command_prints_no_traceback():
    done = subprocess.run([*COMMAND, "train", "--model", "nope"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == (
        "geco: error: unknown model 'nope'; known are nvp, convdraw, unconditional-convdraw, and a class of one's own, "
        "module:Class, file.py:Class, with arguments as in Class(latent=64); geco list models says what they are\n"
    )


def test_without_the_training_packages_one_line_says_what_to_install(trained):
    for package in ("lightning", "typer"):
        code = f"import sys; sys.modules[{package!r}] = None; from geco_ext.cli import main; sys.exit(main(['train']))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert done.returncode == 2
        assert done.stderr == (
            f"geco: error: {package} is not installed; the commands need: "
            'pip install ".[train]" in a clone of geco_ext\n'
        )
    code = f"import sys; sys.modules['lightning'] = None; import geco_ext; geco_ext.load_run({str(trained)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_control_c_leaves_a_run_that_resumes_bit_for_bit(tmp_path):
    options = [*TINY_OPTIONS, "--checkpoint-every", "1000000", "--steps"]
    path = tmp_path / "run"
    process = subprocess.Popen(
        [*COMMAND, "train", *options, "200000", "--out", str(path)], stderr=subprocess.PIPE, text=True
    )
    try:
        _wait_for_records(path / "metrics.csv")
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert messages.splitlines()[-1] == f"geco: interrupted; continue with: geco train --resume {path}"

    stopped = last_checkpoint(path)["global_step"]
    assert 0 < stopped < 200000
    # The whole run is too long for a test: stop it, and a straight one, a few steps further on.
    train_until(resume(path), stopped + 4)
    straight = tmp_path / "straight"
    train_until(start(tiny_settings(steps=200000), straight), stopped + 4)
    assert_same_end(path, straight)


def _wait_for_records(file):
    deadline = time.monotonic() + 60
    while not (file.is_file() and file.read_text().count("\n") > 3):
        assert time.monotonic() < deadline, "the run did not start"
        time.sleep(0.05)

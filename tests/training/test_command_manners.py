"""How all commands behave: help, what they print and for whom, errors, Ctrl-C."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import fields

import pytest
from PIL import Image
from tiny_runs import TINY_OPTIONS, assert_same_end, one_line

import geco_ext
from geco_ext.cli import main
from geco_ext.cli.train import GROUPS
from geco_ext.training import latents, pictures
from geco_ext.training.constraints import CLASSES
from geco_ext.training.models import MODELS
from geco_ext.training.session import Session
from geco_ext.training.settings import TrainingSettings

HEAVY = ("torch", "lightning", "matplotlib", "numpy")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", *TINY_OPTIONS, "--steps", "2", "--out", str(path), "--quiet"]) == 0
    return path


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    "arguments",
    [["-h"], ["train", "--help"], ["train", "--nope"], ["train", "--model", "nvpp"], ["trian"], ["--version"]],
)
def test_help_and_typos_import_nothing_heavy(arguments):
    """Seconds would go by before the answer."""
    done = python(
        f"import sys; from geco_ext.cli import main; main({arguments!r}); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert done.stdout.endswith("[]\n")
    assert "Usage: " in done.stdout or done.stdout.startswith("geco ") or done.stderr.startswith("geco: error: ")


def test_both_spellings_of_help(capsys):
    shown = []
    for spelling in ("-h", "--help"):
        for command in ([], ["train"], ["encode"], ["experiment"]):
            assert main([*command, spelling]) == 0
            shown.append(capsys.readouterr().out)
    assert shown[:4] == shown[4:]
    assert all("Usage: " in each for each in shown)


def test_shell_completion_knows_commands_and_options():
    done = python(
        "import sys; sys.argv[0] = 'geco'; from geco_ext.cli import main; main()",
        _GECO_COMPLETE="complete_bash",
        COMP_WORDS="geco enc",
        COMP_CWORD="1",
    )
    assert done.stdout.split() == ["encode"]


def test_quiet_prints_nothing(trained, tmp_path, capsys):
    capsys.readouterr()
    assert main(["train", *TINY_OPTIONS, "--steps", "2", "--out", str(tmp_path / "run"), "--quiet"]) == 0
    assert main(["encode", str(trained), "--out", str(tmp_path / "latents.npz"), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_results_as_json_are_all_of_stdout(trained, tmp_path, capsys):
    def printed(*arguments):
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    capsys.readouterr()
    results = printed("train", *TINY_OPTIONS, "--steps", "2", "--out", tmp_path / "run")
    assert results.pop("run") == str(tmp_path / "run")
    assert results == json.loads((tmp_path / "run" / "results.json").read_text())
    found = printed("encode", trained, "--out", tmp_path / "latents.npz")
    assert found["latents"] == [1500, 2]
    known = printed("list")
    assert set(known) == {"data", "models", "constraints", "objectives"}
    assert set(known["models"]) > set(MODELS)
    assert printed("info")["geco_ext"]
    described = printed("info", trained)
    assert described["settings"]["model_options"]["latent"] == 2
    assert (described["steps_saved"], described["image_shape"]) == (2, [1, 8, 8])
    assert described["results"]["steps"] == 2


def test_json_has_no_numbers_that_are_not_finite(capsys):
    from geco_ext.cli.output import print_json

    print_json({"a": [float("nan"), 1.0], "b": {"c": float("inf")}})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.0], "b": {"c": None}}


def test_list_has_a_line_for_everything(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for name in (*geco_ext.data.known_names(), *MODELS, "paper:LR"):
        (line,) = [line for line in shown.splitlines() if line.split()[:1] == [name]]
        assert len(line.split()) > 3
    assert sum(name in shown for name in CLASSES) + shown.count("=KAPPA") == len(CLASSES)
    assert main(["list", "models"]) == 0
    assert "pncc" not in capsys.readouterr().out
    assert main(["list", "nope"]) == 2
    assert "known are data, models, constraints, objectives" in one_line(capsys.readouterr())


def test_info_says_what_a_run_is(trained, tmp_path, capsys):
    assert main(["info", str(trained)]) == 0
    shown = capsys.readouterr().out
    for expected in ("nvp on digits (1x8x8), objective geco", "2 of 2 steps", "latent=2", "| reconstruction_error |"):
        assert expected in shown
    assert main(["info", str(tmp_path)]) == 2
    assert "no run in" in one_line(capsys.readouterr())
    assert main(["info", str(trained.parent)]) == 2
    assert one_line(capsys.readouterr()).endswith(f"; the runs in it are {trained}\n")


def test_an_error_of_gecos_own_is_one_line_and_its_traceback_is_to_be_had(trained, monkeypatch, capsys):
    def broken(*arguments):
        raise RuntimeError("of\nno kind")

    monkeypatch.setattr(pictures, "draw_run_samples", broken)
    assert main(["sample", str(trained)]) == 2
    assert "RuntimeError: of no kind (unexpected; GECO_EXT_TRACEBACK=1 shows where)" in one_line(capsys.readouterr())
    monkeypatch.setenv("GECO_EXT_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="no kind"):
        main(["sample", str(trained)])


def test_control_c_that_a_library_has_caught_is_no_error_of_gecos(trained, monkeypatch, capsys):
    def stumbling(*_):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise ImportError("cannot load module more than once per process")

    monkeypatch.setattr(pictures, "draw_run_samples", stumbling)
    capsys.readouterr()
    assert main(["sample", str(trained)]) == 130
    assert capsys.readouterr() == ("", "geco: interrupted\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_control_c_before_the_first_step_says_what_there_is(trained, tmp_path, monkeypatch, capsys):
    def pressed(*_, **__):
        signal.raise_signal(signal.SIGINT)

    path = tmp_path / "run"
    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr(geco_ext.data, "load", pressed)
        assert main(["train", *TINY_OPTIONS, "--out", str(path)]) == 130
        assert capsys.readouterr().err == "geco: interrupted; nothing was saved, no run was begun\n"
        assert not path.exists()
        assert main(["train", "--resume", str(trained), "--steps", "3"]) == 130
        assert f"the run is as it was; continue with: geco train --resume {trained}" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        patched.setattr(Session, "train", pressed)
        assert main(["train", *TINY_OPTIONS, "--steps", "2", "--out", str(path)]) == 130
        last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"geco: interrupted; no step was saved; begin again with: geco train --resume {path}"
    assert main(["train", "--resume", str(path), "--quiet"]) == 0
    assert_same_end(path, trained)


def test_resuming_a_finished_run_says_how_to_train_on(trained, capsys):
    assert main(["train", "--resume", str(trained)]) == 0
    output = capsys.readouterr()
    assert f"is finished, its 2 steps are done; to train on: geco train --resume {trained} --steps 4\n" in output.err
    assert "| reconstruction_error |" in output.out
    assert "geco: measuring 1500 training and 297 held-out examples, and drawing pictures\n" in output.err
    assert main(["train", "--resume", str(trained), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "held_out"),
    [
        (["folder:{images}"], "18 examples of 1x8x8 to train on, 2 held out (the test split, every tenth)"),
        (["folder:{few}"], "9 examples of 1x8x8 to train on, none held out: there is no test split (--validation 0.1"),
        (["folder:{images}", "--validation", "0.5"], "9 examples of 1x8x8 to train on, 9 held out (--validation 0.5;"),
        (["digits"], "1500 examples of 1x8x8 to train on, 297 held out (the test split)"),
    ],
)
def test_what_is_held_out_is_said_at_the_start(tmp_path, monkeypatch, capsys, options, held_out):
    for name, count in (("images", 20), ("few", 9)):
        (tmp_path / name).mkdir()
        for index in range(count):
            Image.new("L", (8, 8), index).save(tmp_path / name / f"{index:02d}.png")
    monkeypatch.setattr(Session, "train", _stop)
    data, *more = [each.format(images=tmp_path / "images", few=tmp_path / "few") for each in options]
    model = [*TINY_OPTIONS, "--batch-size", "9"]
    assert main(["train", *model, "--data", data, *more, "--out", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err.startswith(f"geco: data {data}: {held_out}")


def _stop(session):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--model", "NPV"], "unknown model 'NPV' (did you mean 'nvp'?)"),
        (["train", "--data", "digit"], "unknown data set 'digit' (did you mean 'digits'?)"),
        (["train", "--data", "foldr:{here}"], "(did you mean 'folder:{here}'?)"),
        (["train", "--data", "{here}"], "(did you mean 'folder:{here}'?)"),
        (["train", "--constraint", "pnc=0.9"], "unknown constraint 'pnc=0.9' (did you mean 'pncc=KAPPA[:PATCH]'?)"),
        (["train", "--constraint", "RE = 0.1"], "unknown constraint 'RE = 0.1' (did you mean 're=KAPPA'?)"),
        (["train", "--constraint", "PachNCC(0.9)"], "unknown constraint 'PachNCC(0.9)' (did you mean 'PatchNCC'?)"),
        (["train", "--objective", "elb:0.1"], "unknown objective 'elb:0.1' (did you mean 'elbo'?)"),
        (["train", "--objective", "GECOLos()"], "unknown objective 'GECOLos()' (did you mean 'GECOLoss'?)"),
        (["train", "--model-option", "latnt=3"], "no option 'latnt' (did you mean 'latent'?); it takes latent=24, fl"),
        (["train", "--model", "{here}/own.py:Mine", "--model-option", "wdth=3"], "'width'?); it takes depth, width=8"),
        (["train-classifier", "--model", "resnt"], "unknown classifier 'resnt' (did you mean 'resnet'?)"),
        (["list", "model"], "unknown kind 'model' (did you mean 'models'?)"),
        (["experiment", "matrx"], "unknown experiment 'matrx' (did you mean 'matrix'?)"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(tmp_path, capsys, arguments, message):
    (tmp_path / "own.py").write_text(
        "import torch\nclass Mine(torch.nn.Module):\n    def __init__(self, image_shape, depth, width=8): ...\n"
        "    def forward(self, x): ...\n"
    )
    assert main([each.format(here=tmp_path) for each in arguments]) == 2
    error = one_line(capsys.readouterr())
    assert message.format(here=tmp_path) in error
    if "unknown" in error and arguments[0] == "train":
        assert "geco list " in error


def test_the_help_of_train_has_every_option_under_a_heading(capsys):
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(
        [*(each.name for each in fields(TrainingSettings)), "out", "resume", "config", "quiet", "as_json"]
    )
    assert main(["train", "-h"]) == 0
    shown = capsys.readouterr().out
    places = [shown.index(f" {heading} ") for heading in ("Options", *GROUPS)]
    assert places == sorted(places)
    options = ("--root", "--model", "--constraint", "--steps", "--devices", "--resume")
    starts = [shown.index(f"\u2502 {option} ") for option in options]
    assert starts == sorted(starts)


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["sample", "{run}"], (pictures, "draw_run_samples")),
        (["reconstruct", "{run}"], (pictures, "draw_run_reconstructions")),
        (["encode", "{run}"], (latents, "embedded")),
        (["interpolate", "{run}", "0", "1"], (latents, "draw_interpolation")),
        (["data", "digits"], (geco_ext.data, "load")),
        (["info", "{run}"], (geco_ext.training.run_folder.RunFolder, "read_configuration")),
        (["train", "--steps", "1"], (geco_ext.data, "load")),
    ],
)
def test_control_c_is_one_line_in_every_command(trained, monkeypatch, capsys, arguments, place):
    def pressed(*_, **__):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(*place, pressed)
    assert main([argument.format(run=trained) for argument in arguments]) == 130
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("geco: interrupted")
    assert output.err.count("\n") == 1

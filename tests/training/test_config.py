from dataclasses import dataclass, fields, replace

import pytest
from tiny_runs import TINY_OPTIONS, assert_same_end, one_line

from geco_ext.cli import main
from geco_ext.training.config import option_name, read_config, write_config
from geco_ext.training.run_folder import RunFolder
from geco_ext.training.settings import TrainingSettings


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "run"
    asked = ["--constraint", "re=0.3", "--constraint", "pncc=0.2:4", "--multiplier-bounds", "1:30", "--steps", "3"]
    assert main(["train", *TINY_OPTIONS, *asked, "--out", str(path), "--quiet"]) == 0
    return path


def test_the_configuration_of_a_run_repeats_it(trained, tmp_path):
    again = tmp_path / "again"
    assert main(["train", "--config", str(trained / "config.yaml"), "--out", str(again), "--quiet"]) == 0
    assert RunFolder(again).read_configuration() == RunFolder(trained).read_configuration()
    assert_same_end(again, trained)


def test_options_win_and_the_file_may_name_the_folder(tmp_path):
    file, path = tmp_path / "config.yaml", tmp_path / "run"
    file.write_text(f"steps: 500\nlearning_rate: 1e-4\nout: {path}\n")
    assert main(["train", *TINY_OPTIONS, "--config", str(file), "--steps", "1", "--quiet"]) == 0
    settings = RunFolder(path).read_configuration().settings
    assert (settings.steps, settings.learning_rate) == (1, 1e-4)


def test_settings_survive_yaml(tmp_path):
    settings = TrainingSettings(
        model_options={"latent": 4, "flows": 2},
        constraints=("re=0.1", "mine.py:Mine('a: b')"),
        multiplier_bounds="1:30",
        multiplier_init="1e3",
        learning_rate=1e-5,
        validation=0.1,
        root="/data: ümlaut",
    )
    write_config(tmp_path / "config.yaml", settings)
    assert TrainingSettings(**read_config(tmp_path / "config.yaml", TrainingSettings)) == settings
    plain = replace(settings, model_options={}, root=None, validation=None)
    write_config(tmp_path / "config.yaml", plain)
    assert TrainingSettings(**read_config(tmp_path / "config.yaml", TrainingSettings)) == plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 3", "unknown key 'stepz' (did you mean 'steps'?); known are model, model-option, data"),
        ("constrain: re=0.2", "unknown key 'constrain' (did you mean 'constraint'?)"),
        ("constraint: re=0.2\nconstraints: re=0.3", "constraints is there twice, in two spellings"),
        ("resume: runs/x", "unknown key 'resume'"),
        ("steps: many", "steps must be an integer, got 'many'"),
        ("steps: [1, 2]", "steps must be one value, got ['1', '2']"),
        ("learning-rate: fast", "learning-rate must be a number, got 'fast'"),
        ("model-option: latent=3", "model-option must be a mapping, such as {latent: 64}"),
        ("model-option: {latent: big}", "latent must be an integer, got 'big'"),
        ("- steps", "must hold keys and values"),
        ("steps: [", "is no YAML"),
        ("steps: !!python/object/apply:os.system ['true']", "steps must be one value"),
        ("steps: 0", "steps must be an integer of at least 1, got 0"),
    ],
)
def test_a_wrong_file_is_one_line_and_leaves_no_folder(tmp_path, capsys, text, message):
    (tmp_path / "config.yaml").write_text(text)
    arguments = ["train", "--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert message in one_line(capsys.readouterr())
    assert not (tmp_path / "run").exists()


def test_what_is_empty_or_null_is_left_out(tmp_path):
    (tmp_path / "config.yaml").write_text("size:\npatience: null\nroot: ~\nconstraint: re=0.2\n")
    assert read_config(tmp_path / "config.yaml", TrainingSettings) == {"constraints": ("re=0.2",)}


def test_a_key_may_be_the_name_of_the_option_or_of_the_setting(tmp_path):
    for text in (
        "constraint: [re=0.2]\nmodel-option: {latent: 4}",
        "constraints: [re=0.2]\nmodel_options: {latent: 4}",
    ):
        (tmp_path / "config.yaml").write_text(text)
        given = read_config(tmp_path / "config.yaml", TrainingSettings)
        assert given == {"constraints": ("re=0.2",), "model_options": {"latent": 4}}


def test_a_resumed_run_takes_no_settings_from_a_file(trained, capsys):
    assert main(["train", "--resume", str(trained), "--config", str(trained / "config.yaml")]) == 2
    assert "a resumed run keeps its settings" in one_line(capsys.readouterr())
    assert main(["train", "--config", "nowhere.yaml"]) == 2
    assert "config: no file nowhere.yaml" in one_line(capsys.readouterr())


def test_a_switch_is_true_or_false(tmp_path):
    @dataclass(frozen=True)
    class Switched:
        on: bool = False
        off: bool | None = None

    (tmp_path / "config.yaml").write_text("on: true\noff: No\n")
    assert read_config(tmp_path / "config.yaml", Switched) == {"on": True, "off": False}
    write_config(tmp_path / "again.yaml", Switched(True, False))
    assert read_config(tmp_path / "again.yaml", Switched) == {"on": True, "off": False}
    (tmp_path / "config.yaml").write_text("on: maybe\n")
    with pytest.raises(ValueError, match="on must be true or false, got 'maybe'"):
        read_config(tmp_path / "config.yaml", Switched)


def test_every_setting_has_a_key_of_its_own():
    names = [option_name(each) for each in fields(TrainingSettings)]
    assert len(set(names)) == len(names)

import json

import pytest
import torch
from tiny_runs import TINY_OPTIONS, assert_same_end, one_line, tiny_settings, train_until

import geco_ext
from geco_ext.cli import main
from geco_ext.training.run_folder import RunFolder, read_history
from geco_ext.training.session import resume, start
from geco_ext.training.settings import TrainingSettings


def train(path, *options):
    return main(["train", *TINY_OPTIONS, "--out", str(path), *options])


@pytest.mark.parametrize("objective", ["elbo", "beta:0.1", "anneal:2.0:0.7"])
def test_an_interrupted_run_ends_bit_for_bit_like_a_straight_one(tmp_path, objective):
    settings = tiny_settings(objective=objective, steps=30)
    start(settings, tmp_path / "straight").train()
    train_until(start(settings, tmp_path / "run"), 2)  # in the middle of the annealing
    resume(tmp_path / "run").train()
    assert_same_end(tmp_path / "run", tmp_path / "straight")


@pytest.mark.parametrize("objective", ["elbo", "elbo:0.2", "beta:4:0.1", "anneal"])
def test_the_report_speaks_of_the_objective(tmp_path, capsys, objective):
    path = tmp_path / "run"
    assert train(path, "--objective", objective, "--steps", "20") == 0
    output = capsys.readouterr().out
    assert "| objective" in output
    assert "kappa" not in output
    assert "Met:" not in output
    results = json.loads((path / "results.json").read_text())
    assert results["constraints"] == []
    row = results["objective"]
    assert row["name"] == objective
    sigma, elements = row["sigma"], 64
    log_density = torch.distributions.Normal(0.0, sigma).log_prob(torch.tensor(0.0))
    assert row["nll"] == pytest.approx(elements * float(results["rmse"] ** 2 / (2 * sigma**2) - log_density), rel=1e-4)
    assert row["optimal_nll"] <= row["nll"]
    assert {"nll", "sigma", "beta", "rmse", "kl"} <= read_history(path / "metrics.csv").keys()
    assert (path / "trajectory.png").read_bytes().startswith(b"\x89PNG")


def test_load_run_gives_the_objective_back(tmp_path):
    path = tmp_path / "run"
    assert train(path, "--objective", "elbo", "--steps", "5") == 0
    run = geco_ext.load_run(path)
    checkpoint = RunFolder(path).read_checkpoint(RunFolder(path).last_checkpoint)
    assert run.config.objective == "elbo"
    assert run.config.constraints == ()
    assert torch.equal(run.criterion.log_sigma, checkpoint["state_dict"]["criterion.log_sigma"])
    assert not run.criterion.training


def test_a_prolonged_run_keeps_its_annealing(tmp_path):
    path = tmp_path / "run"
    start(tiny_settings(objective="anneal", steps=20), path).train()
    session = resume(path, steps=1000)
    assert int(session.module.criterion.annealing_steps) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objective", "nope"], "unknown objective 'nope'; known are geco, natural, paper:LR, elbo"),
        (["--objective", "beta"], "objective 'beta' has 0 values"),
        (["--objective", "GECOLoss(alpha=0.9"], "objective 'GECOLoss(alpha=0.9': a bracket is not closed"),
        (["--objective", "own.py", "--constraint", "re=0.1"], "objective 'own.py': no file own.py"),
        (["--objective", "elbo", "--constraint", "re=0.1"], "re=0.1 cannot be given with the objective 'elbo'"),
        (["--objective", "GaussianObjective()", "--constraint", "re=0.1"], "re=0.1 cannot be given with the objective"),
        (["--objective", "GECOLoss(alpha=2)"], "alpha: got 2, expected a number in [0, 1); known are geco"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_no_folder(tmp_path, capsys, options, message):
    path = tmp_path / "run"
    assert train(path, *options) == 2
    assert message in one_line(capsys.readouterr())
    assert not path.exists()


def test_a_resumed_run_keeps_its_objective(tmp_path, capsys):
    path = tmp_path / "run"
    start(tiny_settings(objective="elbo", steps=1), path).train()
    capsys.readouterr()
    assert main(["train", "--resume", str(path), "--objective", "geco"]) == 2
    assert "leave out: objective" in one_line(capsys.readouterr())


def test_a_call_gives_the_criterion_what_short_forms_cannot(tmp_path):
    options = ["--objective", "GECOLoss(alpha=0.5, multiplier_init=2.0)", "--constraint", "PatchNCC(0.2, 4, stride=2)"]
    assert train(tmp_path / "run", *options, "--steps", "2") == 0
    criterion = geco_ext.load_run(tmp_path / "run").criterion
    assert (criterion.alpha, criterion.names, criterion.constraints[0].stride) == (0.5, ("patch_ncc",), 2)


def test_settings_without_constraints_have_those_of_their_objective():
    assert TrainingSettings().constraints == ("re=0.1",)
    assert TrainingSettings(objective="elbo").constraints == ()
    assert TrainingSettings(objective="GECOLoss.paper(lr=0.1)").constraints == ("re=0.1",)
    assert TrainingSettings(objective=" GECOLoss (alpha=0.9) ").constraints == ("re=0.1",)
    assert TrainingSettings(objective="GaussianObjective()").constraints == ()
    settings = TrainingSettings(objective="beta:4")
    assert TrainingSettings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings

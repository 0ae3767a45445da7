"""The page on choosing kappa: its code and commands run as they stand there, and what it says in numbers is so."""

import math
import re
import shlex
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY_OPTIONS

import geco_ext
from geco_ext.training import GaussianObjective

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "choosing_kappa.md").read_text()


@pytest.fixture(scope="module")
def names():
    """What the page's code makes, block after block."""
    found = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(code, found)
    return found


def test_the_upper_end_is_what_the_page_says(names):
    images = names["images"]
    assert float(names["upper"]) == pytest.approx(0.21, abs=0.005)
    assert "# 0.21 for these" in PAGE
    constants = [images.mean(0) + offset for offset in (0.05, -0.05)] + [images[0], torch.zeros_like(images[0])]
    assert all((images - each).square().mean().sqrt() > names["upper"] for each in constants)


def test_a_model_that_is_not_trained_is_above_it(names):
    assert names["upper"] < names["rmse"] < 1


def test_the_sigma_of_a_beta_vae_is_the_one_of_the_page():
    """Gradients of the ELBO with that sigma are those of the loss, up to one factor; and the way back from lambda."""
    beta, elements = 0.02, 64
    x, noise = torch.zeros(5, 1, 8, 8).double(), torch.rand(5, 1, 8, 8).double()

    def gradients(loss_of):
        x_hat, kl = noise.clone().requires_grad_(), torch.ones(5).double().requires_grad_()
        by_x_hat, by_kl = torch.autograd.grad(loss_of(x_hat, kl), [x_hat, kl])
        return by_x_hat / by_kl[0]

    def squares(x_hat):
        return (x_hat - x).square().flatten(1)

    of_sum = gradients(lambda x_hat, kl: (squares(x_hat).sum(1) + beta * kl).mean())
    of_mean = gradients(lambda x_hat, kl: (squares(x_hat).mean(1) + beta * kl).mean())
    for expected, sigma in ((of_sum, math.sqrt(beta / 2)), (of_mean, math.sqrt(elements * beta / 2))):
        objective = GaussianObjective(sigma=sigma).double()
        torch.testing.assert_close(gradients(lambda x_hat, kl, loss=objective: loss(x_hat, x, kl)), expected)
    criterion = geco_ext.GECOLoss(geco_ext.ReconstructionError(0.1), multiplier_init=elements / beta).eval()
    torch.testing.assert_close(gradients(lambda x_hat, kl: criterion(x_hat, x, kl)), of_sum)


def test_the_commands_run(tmp_path, monkeypatch):
    pytest.importorskip("lightning")
    from geco_ext.cli import main

    monkeypatch.chdir(tmp_path)
    (commands,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    threads = torch.get_num_threads()
    for line in commands.splitlines():
        program, command, *arguments = shlex.split(line, comments=True)
        assert program == "geco"
        assert main([command, *arguments, *([*TINY_OPTIONS, "--steps", "1"] if command == "train" else [])]) == 0
    torch.set_num_threads(threads)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"loose", "middle", "tight"}
    assert (tmp_path / "runs" / "loose" / "reconstructions-test-0.png").is_file()

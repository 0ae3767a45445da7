import math

import pytest
import torch
from tiny_runs import TINY_MODEL

import geco_ext
from geco_ext.training.objectives import GaussianObjective, build_objective
from geco_ext.training.training_step import ConstrainedTraining


@pytest.fixture
def pair():
    return torch.rand(5, 2, 4, 4, dtype=torch.float64), torch.rand(5, 2, 4, 4, dtype=torch.float64)


@pytest.mark.parametrize(("sigma", "beta"), [(0.1, 1.0), (0.7, 4.0)])
def test_the_loss_is_the_gaussian_log_density_and_beta_times_the_kl(pair, sigma, beta):
    x_hat, x = pair
    kl = torch.rand(5, dtype=torch.float64)
    log_density = torch.distributions.Normal(x_hat, sigma).log_prob(x).flatten(1).sum(1)
    objective = GaussianObjective(sigma, (beta, beta)).double()
    assert float(objective(x_hat, x, kl)) == pytest.approx(float((beta * kl - log_density).mean()), rel=1e-6)
    assert float(objective.metrics()["nll"]) == pytest.approx(float(-log_density.mean()), rel=1e-6)


def test_a_learned_sigma_is_best_at_the_root_mean_square_error(pair):
    objective = GaussianObjective().double()
    with torch.no_grad():
        objective.log_sigma.copy_((pair[0] - pair[1]).square().mean().sqrt().log())
    objective(*pair, torch.zeros(5, dtype=torch.float64)).backward()
    assert float(objective.log_sigma.grad) == pytest.approx(0, abs=1e-9)


def test_beta_falls_in_a_line_over_a_tenth_of_the_steps_and_rests():
    objective = build_objective("anneal", steps=100)
    x = torch.zeros(1, 1)
    betas = []
    for _ in range(12):
        betas.append(float(objective.beta))
        objective(x, x, torch.ones(1))
    assert betas == pytest.approx([2.0 - 1.3 * min(step, 10) / 10 for step in range(12)])
    losses = [float(objective.eval()(x, x, torch.ones(1))) for _ in range(2)]
    assert losses[0] == losses[1] == pytest.approx(0.7 + 0.5 * math.log(2 * math.pi))
    assert int(objective.steps) == 12


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_batch_that_is_not_finite_moves_nothing(value):
    objective = build_objective("anneal", steps=100)
    x = torch.zeros(2, 3)
    for x_hat, kl in ((x + value, torch.ones(2)), (x, torch.tensor([1.0, value]))):
        objective(x_hat, x, kl)
    assert int(objective.steps) == 0
    assert int(objective.skipped) == 2
    assert float(objective.beta) == 2.0


def test_a_prolonged_run_keeps_its_schedule():
    begun = build_objective("anneal", steps=100)
    prolonged = build_objective("anneal", steps=1000)
    prolonged.load_state_dict(begun.state_dict())
    assert int(prolonged.annealing_steps) == 10


@pytest.mark.parametrize(
    ("text", "sigma", "beta"),
    [
        ("elbo", None, (1, 1)),
        ("elbo:0.2", 0.2, (1, 1)),
        ("beta:4", 1, (4, 4)),
        ("beta:4:0.1", 0.1, (4, 4)),
        ("beta:4:learned", None, (4, 4)),
        ("anneal", 1, (2, 0.7)),
        ("anneal:3:0.5", 1, (3, 0.5)),
        ("anneal:3:0.5:0.1", 0.1, (3, 0.5)),
        ("GaussianObjective()", None, (1, 1)),
        ("GaussianObjective(0.2, beta=4)", 0.2, (4, 4)),
        ("GaussianObjective(sigma=None, beta=(3, 0.5), annealing_steps=7)", None, (3, 0.5)),
    ],
)
def test_objectives_are_read_as_written(text, sigma, beta):
    objective = build_objective(text, steps=10)
    assert objective.beta_range.tolist() == pytest.approx(beta)
    assert len(list(objective.parameters())) == (sigma is None)
    if sigma is not None:
        assert float(objective.sigma) == pytest.approx(sigma)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope", r"unknown objective 'nope'; known are geco, natural, paper:LR, elbo\[:SIGMA\], beta"),
        ("beta", "objective 'beta' has 0 values; known are"),
        ("anneal:2", "objective 'anneal:2' has 1 values"),
        ("beta:x", "objective 'beta:x': could not convert string to float: 'x'; known are"),
        ("elbo:", "objective 'elbo:': could not convert"),
        ("elbo:0", "objective 'elbo:0': sigma: got 0.0"),
        ("beta:-1", "objective 'beta:-1': beta: got -1.0"),
        ("beta:inf", "objective 'beta:inf': beta: got inf"),
        ("geco:1", "objective 'geco:1' has 1 values; known are"),
        (
            "Nope()",
            r"unknown objective 'Nope\(\)'; known are geco, .*, and calls of GECOLoss, GECOLoss.natural, ",
        ),
        ("no.module:Mine()", r"objective 'no.module:Mine\(\)': cannot import 'no.module' .*; known are"),
        ("GaussianObjective(sigma=s)", "sigma must be a literal, .*, got s; known are"),
        ("GaussianObjective(sigma=-1)", "sigma: got -1"),
        ("GaussianObjective(annealing_steps=0.5)", "annealing_steps: got 0.5"),
        ("GaussianObjective(sgma=1)", "unexpected keyword argument 'sgma'"),
    ],
)
def test_a_wrong_objective_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        build_objective(text, steps=10)


def test_shapes_that_differ_are_refused():
    objective = GaussianObjective(0.1)
    with pytest.raises(ValueError, match="expected the same shape"):
        objective(torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(ValueError, match="kl: got shape"):
        objective(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3))
    assert int(objective.steps) == 0


def test_sigma_is_trained_with_the_model_and_a_non_finite_step_leaves_it():
    model = geco_ext.models.NVPVAE((1, 8, 8), **TINY_MODEL)
    module = ConstrainedTraining(model, GaussianObjective(), learning_rate=1e-3, steps=100, takes_context=False)
    optimizer = module.configure_optimizers()["optimizer"]

    def step(images):
        optimizer.zero_grad()
        module.training_step({"x": images, "label": torch.zeros(8, dtype=torch.int64)}, 0).backward()
        module.on_before_optimizer_step(optimizer)
        optimizer.step()
        return float(module.criterion.log_sigma)

    images = torch.rand(8, 1, 8, 8)
    first = step(images)
    assert first < 0
    broken = images.clone()
    broken[0, 0, 0, 0] = math.nan
    assert step(broken) == first
    assert int(module.skipped_steps) == 1
    assert step(images) < first


class WithParameter(geco_ext.Constraint):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x_hat, x, labels=None):
        return self.weight * (x_hat - x).square().mean()


def test_what_a_constraint_holds_is_not_trained():
    model = geco_ext.models.NVPVAE((1, 8, 8), **TINY_MODEL)
    criterion = geco_ext.GECOLoss([WithParameter()])
    module = ConstrainedTraining(model, criterion, learning_rate=1e-3, steps=1, takes_context=False)
    trained = [each for group in module.configure_optimizers()["optimizer"].param_groups for each in group["params"]]
    assert len(trained) == len(list(model.parameters()))


def test_what_a_weight_of_zero_hides_does_not_matter():
    """Neither to the loss nor to the gradient; of any rank."""
    for shape in ((4, 1, 6, 6), (4,)):
        x_hat, x, weight = torch.rand(shape), torch.rand(shape), torch.ones(shape)
        weight.view(-1)[1] = 0
        gradients = []
        for hidden in (0.5, math.nan, math.inf):
            x_hat.view(-1)[1] = hidden
            leaf = x_hat.clone().requires_grad_()
            GaussianObjective(sigma=0.1)(leaf, x, torch.zeros(4), weight=weight).backward()
            gradients.append(leaf.grad)
        assert gradients[0].view(-1)[1] == 0
        assert torch.equal(gradients[0], gradients[1])
        assert torch.equal(gradients[0], gradients[2])

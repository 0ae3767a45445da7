"""The operators as PyTorch's compiler and checkers see them."""

import pytest
import torch
from torch.library import opcheck

import geco_ext
from geco_ext import GECOLoss, ReconstructionError
from geco_ext.contract import Term, format_terms, parse_terms
from geco_ext.state import new_block

UPDATE = (0.99, 0.05, 5.0, "log", 1.0, 1)


def arguments(dtype=torch.float32, layout=torch.contiguous_format):
    """All kinds of terms in one call."""
    terms = (
        Term("squared_error"),
        Term("squared_error", rows=2),
        Term("patch_ncc", patch_size=3, eps=1e-5),
        Term("local_statistics", patch_size=3, eps=1e-5),
        Term("squared_error", on_image=False),
        Term("scalar_similarity", on_image=False),
        Term("scalar", on_image=False),
    )
    predictions = [
        torch.rand(3, 2, 6, 5, dtype=dtype).contiguous(memory_format=layout),
        torch.rand(3, 7, dtype=dtype),
        torch.rand(3, dtype=dtype),
        torch.rand(3, dtype=dtype),
    ]
    targets = [*(torch.rand_like(p) for p in predictions[:2]), None, None]
    kl = torch.rand(3)
    buffer_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    gradients = [torch.empty_like(t, dtype=buffer_dtype) for t in (predictions[0], predictions[1], predictions[3], kl)]
    weights = [None] * len(predictions)
    block = new_block(8)
    owners = [-1, 4, 5, 6]
    wants = [True, True, False, True, True]
    return predictions, targets, weights, kl, block, format_terms(terms), owners, gradients, wants, 3, 60


OPERATORS = {
    "training_loss": lambda a: (*a, *UPDATE),
    "evaluation_loss": lambda a: a,
    "constraint_sums": lambda a: a,
    "update_from_sums": lambda a: (torch.rand(9, dtype=torch.float64) + 1, 1, *a, *UPDATE),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_opcheck(name, dtype):
    operator = getattr(torch.ops.geco_ext, name).default
    opcheck(operator, OPERATORS[name](arguments(dtype)))


def test_opcheck_channels_last():
    opcheck(torch.ops.geco_ext.training_loss.default, (*arguments(layout=torch.channels_last), *UPDATE))


def test_term_text_round_trip():
    text = arguments()[5]
    assert format_terms(parse_terms(text)) == text


def criteria(**settings):
    torch.manual_seed(3)
    extractor = torch.nn.Conv2d(1, 2, 3)
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    class Brightness(geco_ext.Constraint):
        def forward(self, x_hat, x, labels=None):
            return (x_hat - x).mean((1, 2, 3)).square()

    return [
        GECOLoss(
            [
                ReconstructionError(0.1),
                geco_ext.PatchNCC(0.9, patch_size=3),
                geco_ext.FeatureReconstructionError(0.1, extractor),
                geco_ext.ClassificationAccuracy(0.9, classifier),
                Brightness(),
            ],
            **settings,
        )
        for _ in range(2)
    ]


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_a_whole_step_compiles_without_graph_breaks(compiler):
    """Forward, backward and multiplier update; state advances; one compilation serves all steps."""
    eager, compiled = criteria()
    decoder = torch.nn.Conv2d(1, 1, 3, padding=1)

    def step(criterion, x, kl, labels):
        x_hat = torch.sigmoid(decoder(x))
        loss = criterion(x_hat, x, kl, labels=labels)
        gradients = torch.autograd.grad(loss, [*decoder.parameters(), kl]) if criterion is eager else None
        return loss, gradients

    torch._dynamo.reset()
    fast = torch.compile(lambda *a: step(compiled, *a)[0], fullgraph=True, backend=compiler)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for index in range(5):
            x, kl = torch.rand(4, 1, 8, 8), torch.rand(4, requires_grad=True)
            labels = torch.randint(0, 10, (4,))
            expected, gradients = step(eager, x, kl, labels)
            loss = fast(x, kl, labels)
            got = torch.autograd.grad(loss, [*decoder.parameters(), kl])
            assert torch.allclose(loss, expected, rtol=1e-5), index
            for a, b in zip(got, gradients, strict=True):
                assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)
            if index == 2:
                for criterion in (eager, compiled):  # a schedule: no recompilation
                    criterion.constraints[0].kappa = 0.2
    assert int(compiled.steps) == 5
    assert torch.allclose(eager.log_multiplier, compiled.log_multiplier, rtol=1e-6)


def test_evaluation_compiles():
    (criterion, _) = criteria(multiplier_init=2.0)
    criterion.eval()
    torch._dynamo.reset()
    fast = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    x, x_hat = torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8, requires_grad=True)
    labels = torch.randint(0, 10, (4,))
    loss = fast(x_hat, x, torch.zeros(4), labels)
    (gradient,) = torch.autograd.grad(loss, x_hat)
    expected = criterion(x_hat, x, torch.zeros(4), labels)
    assert torch.allclose(loss, expected)
    assert torch.allclose(gradient, torch.autograd.grad(expected, x_hat)[0], rtol=1e-4, atol=1e-7)


def test_compiled_steps_of_changing_batch_size():
    criterion = GECOLoss.natural([ReconstructionError(0.1)])
    torch._dynamo.reset()
    fast = torch.compile(criterion, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch in (4, 7, 3):
        x_hat = torch.rand(batch, 1, 8, 8, requires_grad=True)
        x = torch.rand(batch, 1, 8, 8)
        multiplier = 3200.0 if batch == 4 else float(criterion.multiplier)
        fast(x_hat, x, torch.zeros(batch)).backward()
        assert torch.allclose(x_hat.grad, (multiplier * 2 / (batch * 64)) * (x_hat - x).detach(), rtol=1e-4)
    assert int(criterion.steps) == 3


def test_nothing_that_wants_a_gradient_compiles_too():
    """Validation under no_grad, and functionals: one pair of tensors, the shortest calls there are."""
    torch._dynamo.reset()
    criterion = GECOLoss([ReconstructionError(0.1)], multiplier_init=2.0)
    fast = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    x_hat, x = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    with torch.no_grad():
        fast(x_hat, x, torch.zeros(2))
        criterion.eval()
        assert torch.allclose(fast(x_hat, x, torch.zeros(2)), criterion(x_hat, x, torch.zeros(2)))
    assert int(criterion.steps) == 1
    functional = torch.compile(geco_ext.functional.reconstruction_error, fullgraph=True, backend="aot_eager")
    expected = geco_ext.functional.reconstruction_error(x_hat, x, kappa=0.1)
    assert torch.allclose(functional(x_hat, x, kappa=0.1), expected)


def test_a_custom_constraint_compiles_and_follows_a_schedule_without_compiling_again():
    class Brightness(geco_ext.Constraint):
        def forward(self, x_hat, x, labels=None):
            return (x_hat - x).mean((1, 2, 3)).square() - self.kappa_tensor

    torch._dynamo.reset()
    criterion = GECOLoss([Brightness(kappa=0.5)], multiplier_init=1.0)
    fast = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    x_hat, x = torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for kappa in (0.5, 0.25, 0.1):
            criterion.constraints[0].kappa = kappa
            fast(x_hat, x, torch.zeros(2))
            assert float(criterion.last_constraint) == pytest.approx(1 - kappa, abs=1e-6)

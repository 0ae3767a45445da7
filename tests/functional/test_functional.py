"""Constraints as functions: gradcheck, targets that want a gradient."""

import functools

import elementwise
import oracle
import pytest
import torch
from torch.autograd import gradcheck

import geco_ext
from geco_ext import functional as gf


def pair(shape=(2, 3, 9, 8), dtype=torch.float64):
    return torch.rand(shape, dtype=dtype).requires_grad_(), torch.rand(shape, dtype=dtype)


def weight_of(images):
    """Some are zero."""
    weight = torch.arange(images.numel(), dtype=torch.float64).view(images.shape)
    return weight % 5


def of_every_error():
    """Averaged in the three ways that have code of their own."""
    for row in elementwise.TABLE:
        of_kind = functools.partial(row.function, kappa=0.1, **row.settings[-1])
        yield row.kind, of_kind
        yield f"{row.kind}_channels", functools.partial(of_kind, channels=3)
        yield (
            f"{row.kind}_weighted_sum",
            lambda a, b, f=of_kind: f(a, b, reduction="sum", weight=weight_of(a)[:, :1]),
        )


FUNCTIONALS = {
    **dict(of_every_error()),
    "patch_ncc": lambda a, b: gf.patch_ncc(a, b, kappa=0.9, patch_size=3, eps=1e-2),
    "patch_ncc_per_channel": lambda a, b: gf.patch_ncc(
        a, b, kappa=0.9, patch_size=3, stride=2, eps=1e-2, per_channel=True
    ),
    "local_statistics": lambda a, b: gf.local_statistics(a, b, kappa=0.1, patch_size=3, eps=1e-2),
    "feature_reconstruction_error": lambda a, b: gf.feature_reconstruction_error((a, a[:, 0]), (b, b[:, 0]), kappa=0.1),
}


@pytest.mark.parametrize("name", FUNCTIONALS)
@pytest.mark.parametrize("backend_name", ["reference", None])
def test_gradcheck_of_every_functional(name, backend_name):
    x_hat, x = pair((2, 3, 5, 4))
    x.requires_grad_()  # served too: the constraints are symmetric
    if backend_name is None:
        assert gradcheck(FUNCTIONALS[name], (x_hat, x))
        return
    with geco_ext.use_backend(backend_name):
        assert gradcheck(FUNCTIONALS[name], (x_hat, x))


@pytest.mark.parametrize("from_logits", [True, False])
def test_gradcheck_of_classification_accuracy(from_logits):
    labels = torch.tensor([0, 3, 1])
    scores = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda s: gf.classification_accuracy(s, labels, kappa=0.9, from_logits=from_logits), (scores,))


def test_gradcheck_of_the_evaluation_loss():
    extractor = torch.nn.Conv2d(3, 2, 3).double()
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 7, 5)).double()
    others = elementwise.TABLE[1:]
    criterion = geco_ext.GECOLoss(
        [
            geco_ext.ReconstructionError(0.1),
            geco_ext.ReconstructionError(0.1, channels=3, name="channel"),
            geco_ext.PatchNCC(0.9, patch_size=3, eps=1e-2),
            geco_ext.LocalStatistics(0.1, patch_size=4, stride=2, eps=1e-2),
            geco_ext.FeatureReconstructionError(0.1, extractor),
            geco_ext.ClassificationAccuracy(0.9, classifier),
            *(row.constraint(0.1, **row.settings[-1]) for row in others),
        ],
        multiplier_init=[2.0, 1.0, 0.5, 3.0, 1.5, 4.0, 0.3, 1.0, *[0.7] * len(others)],
    ).eval()
    x_hat, x = pair((2, 3, 8, 7))
    kl = torch.rand(2, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([1, 4])
    assert gradcheck(lambda a, k: criterion(a, x, k, labels=labels), (x_hat, kl))


def test_gradient_of_the_targets_in_a_training_step():
    criterion = geco_ext.GECOLoss(
        [geco_ext.PatchNCC(0.9, 3), *(row.constraint(0.1) for row in elementwise.TABLE)], multiplier_init=2.0
    )
    x_hat, x = pair()
    x.requires_grad_()
    criterion(x_hat, x, torch.zeros(2, dtype=torch.float64)).backward()
    y_hat, y = x_hat.detach().requires_grad_(), x.detach().requires_grad_()
    (
        2 * oracle.patch_ncc(y_hat, y, 0.9, 3) + 2 * sum(row.expected(y_hat, y, 0.1) for row in elementwise.TABLE)
    ).backward()
    assert torch.allclose(x.grad, y.grad, rtol=1e-9, atol=1e-12)
    assert torch.allclose(x_hat.grad, y_hat.grad, rtol=1e-9, atol=1e-12)


def test_no_gradient_no_buffer():
    x_hat, x = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    assert not gf.reconstruction_error(x_hat, x, kappa=0.1).requires_grad
    with torch.no_grad():
        assert not gf.reconstruction_error(x_hat.requires_grad_(), x, kappa=0.1).requires_grad


def called_alone():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 9 * 8, 5)).double()
    return [
        *(row.constraint(0.1) for row in elementwise.TABLE),
        geco_ext.ReconstructionError(0.1, channels=3),
        geco_ext.PatchNCC(0.9, 3),
        geco_ext.LocalStatistics(0.1, 3),
        geco_ext.StructuralSimilarity(0.9, 3),
        geco_ext.FeatureReconstructionError(0.1, network),
        geco_ext.ClassificationAccuracy(0.9, network),
        geco_ext.ClassificationAccuracy(0.9, network, gradient="log_probability"),
    ]


@pytest.mark.parametrize("constraint", called_alone(), ids=lambda constraint: type(constraint).__name__)
def test_a_constraint_called_by_itself_is_what_the_criterion_measures(constraint):
    x_hat, x = pair((2, 3, 9, 8))
    labels = torch.tensor([1, 4])
    criterion = geco_ext.GECOLoss([constraint])
    criterion(x_hat, x, torch.zeros(()), labels=labels)
    alone = constraint(x_hat, x, labels=labels)
    torch.testing.assert_close(alone.reshape(-1), criterion.last_constraint, rtol=1e-12, atol=1e-12)
    assert alone.requires_grad

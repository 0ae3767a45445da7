"""What GECOLoss takes: one constraint or several, a kl in several shapes, tolerances above zero."""

import pytest
import torch

from geco_ext import GECOLoss, ReconstructionError


def criterion_of(*kappas, **settings):
    return GECOLoss([ReconstructionError(k, name=f"re{i}") for i, k in enumerate(kappas)], **settings)


def step(criterion, error=0.2, batch=2, kl=1.0):
    x = torch.zeros(batch, 1, 4, 4, device=criterion.kappa.device)
    return criterion(x + error, x, x.new_full((batch,), kl))


def test_one_constraint_stands_by_itself():
    alone, listed = GECOLoss(ReconstructionError(0.1)), GECOLoss([ReconstructionError(0.1)])
    assert alone.names == listed.names == ("reconstruction_error",)
    assert torch.equal(step(alone), step(listed))
    assert GECOLoss.paper(ReconstructionError(0.1), lr=0.1).names == listed.names


@pytest.mark.parametrize("batch", [1, 3])
def test_a_kl_with_a_dimension_of_one_is_that_of_the_examples(backend, device, batch):
    kl = torch.rand(batch, device=device)
    x = torch.zeros(batch, 1, 4, 4, device=device)
    results = []
    for shape in ((batch,), (batch, 1)):
        of_shape = kl.reshape(shape).clone().requires_grad_()
        x_hat = (x + 0.2).requires_grad_()
        loss = GECOLoss([ReconstructionError(0.1)]).to(device)(x_hat, x, of_shape)
        (2 * loss).backward()
        assert of_shape.grad.shape == shape
        results.append((loss.detach(), of_shape.grad.flatten(), x_hat.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_tolerance_is_not_set_to_zero():
    criterion = criterion_of(0.1)
    with pytest.raises(ValueError, match=r"kappa: got 0.0, expected .*a scale, which is 0 here"):
        criterion.constraints[0].kappa = 0.0
    assert criterion.constraints[0].kappa == float(criterion.kappa) == 0.1

"""Several processes: one state, and gradients whose plain average is the gradient of the global mean."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

import geco_ext
from geco_ext import AbsoluteError, GECOLoss, PatchNCC, ReconstructionError

BATCHES = (3, 5)  # unequal on purpose

WORKER = textwrap.dedent(
    """
    import sys
    import torch
    import torch.distributed as dist
    sys.path.insert(0, sys.argv[4])
    from test_distributed import BATCHES, criterion, data, spoiled, weights

    rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    loss_of = criterion(sys.argv[5])
    first = sum(BATCHES[:rank])
    results = []
    for step in range(6):
        x_hat, x, kl = (t[first : first + BATCHES[rank]] for t in data(step))
        x_hat, kl = x_hat.clone().requires_grad_(), kl.clone().requires_grad_()
        if step == 3 and rank == 1:
            kl = spoiled(kl)
        weight = weights(sys.argv[5], step, slice(first, first + BATCHES[rank]))
        loss = loss_of(x_hat, x, kl, **weight)
        loss.backward()
        results.append((loss.detach(), x_hat.grad, kl.grad if kl.is_leaf else None, loss_of._block.clone()))
    torch.save(results, f"{out}.{rank}")
    dist.destroy_process_group()
    """
)


CONSTRAINTS = {
    "errors": lambda: [ReconstructionError(0.1), AbsoluteError(0.2), AbsoluteError(0.2, channels=2, name="channel")],
    "patches": lambda: [ReconstructionError(0.1), PatchNCC(0.9, patch_size=3), AbsoluteError(0.2)],
}
CONSTRAINTS["weights"] = CONSTRAINTS["errors"]


def criterion(kind):
    torch.manual_seed(5)
    return GECOLoss(CONSTRAINTS[kind](), multiplier_init=2.0, accumulation_steps=2)


def weights(kind, step, examples=slice(None)):
    """Of some pixels; the fifth example has none, and at one step nobody of the first process."""
    if kind != "weights":
        return {}
    weight = torch.rand(sum(BATCHES), 1 + step % 2, 6, 6, generator=torch.Generator().manual_seed(100 + step))
    weight[weight < 0.4] = 0
    weight[4] = 0
    if step == 2:
        weight[: BATCHES[0]] = 0
    return {"weight": weight[examples]}


def data(step):
    generator = torch.Generator().manual_seed(step)
    shape = (sum(BATCHES), 2, 6, 6)
    return (
        torch.rand(shape, generator=generator, dtype=torch.float64),
        torch.rand(shape, generator=generator, dtype=torch.float64),
        torch.rand(shape[0], generator=generator, dtype=torch.float64),
    )


def spoiled(kl):
    broken = kl.detach().clone()
    broken[0] = float("nan")
    return broken


@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_two_processes_of_unequal_batches_equal_one(tmp_path, kind):
    here = os.path.dirname(__file__)
    command = [sys.executable, "-c", WORKER]
    workers = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store"), str(tmp_path / "out"), here, kind])
        for rank in range(2)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    ranks = [torch.load(tmp_path / f"out.{rank}") for rank in range(2)]

    single = criterion(kind)
    for step in range(6):
        x_hat, x, kl = data(step)
        x_hat.requires_grad_(), kl.requires_grad_()
        if step == 3:
            kl = spoiled(kl)
        loss = single(x_hat, x, kl, **weights(kind, step))
        loss.backward()
        (loss_0, grad_0, kl_0, state_0), (loss_1, grad_1, kl_1, state_1) = (r[step] for r in ranks)
        assert torch.equal(state_0.nan_to_num(), state_1.nan_to_num())  # to the bit
        # Sums are added in another order than in one process: equal to rounding.
        assert torch.allclose(state_0.nan_to_num(), single._block.nan_to_num(), rtol=1e-12, atol=1e-14)
        if step == 3:
            assert not loss_0.isfinite()
            assert not loss_1.isfinite()
            continue
        assert torch.allclose((loss_0 + loss_1) / 2, loss.detach(), rtol=1e-12)
        # A parameter's gradient is a sum over examples; the plain average over ranks halves each rank's part.
        assert torch.allclose(torch.cat([grad_0, grad_1]) / 2, x_hat.grad, rtol=1e-9, atol=1e-15)
        assert torch.allclose(torch.cat([kl_0, kl_1]) / 2, kl.grad, rtol=1e-12)
    assert int(single.skipped) == 1


def test_a_group_of_one_and_no_group_agree(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        x_hat, x, kl = data(0)
        losses = [
            GECOLoss([ReconstructionError(0.1)], process_group=group)(x_hat, x, kl)
            for group in (None, False, torch.distributed.group.WORLD)
        ]
        foreign = GECOLoss([ReconstructionError(0.1)], process_group=torch.distributed.GroupMember.NON_GROUP_MEMBER)
        with pytest.raises(ValueError, match="process_group"):
            foreign(x_hat, x, kl)
    finally:
        torch.distributed.destroy_process_group()
    assert losses[0] == losses[1] == losses[2]
    assert geco_ext.available_backends()

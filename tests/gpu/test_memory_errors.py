"""compute-sanitizer on a small run: no access outside a tensor, no race in shared memory."""

import os
import shutil
import subprocess
import sys

import pytest

import geco_ext

PROGRAM = """
import sys
import torch, geco_ext
from geco_ext import GECOLoss, LocalStatistics, PatchNCC, ReconstructionError
from geco_ext import functional as gf

device = sys.argv[1]
with geco_ext.use_backend(sys.argv[2]):
    for dtype in (torch.float32, torch.float16, torch.float64):
        for layout in (torch.contiguous_format, torch.channels_last):
            for constraints in (
                [ReconstructionError(0.1), ReconstructionError(0.2, channels=3, name="channel")],
                [ReconstructionError(0.1), PatchNCC(0.9, 4), LocalStatistics(0.1, 3, stride=2)],
                [PatchNCC(0.9, 5, per_channel=True)],
            ):
                torch.manual_seed(0)
                criterion = GECOLoss(constraints).to(device)
                x = torch.rand(2, 3, 37, 41, device=device, dtype=dtype).contiguous(memory_format=layout)
                x_hat = torch.rand_like(x).requires_grad_()
                for _ in range(2):
                    criterion(x_hat, x, torch.rand(2, device=device)).backward()
                assert int(criterion.steps) == 2
    for dtype in (torch.float32, torch.float16, torch.float64):
        for shape in ((2, 8, 5, 7), (3, 37), (2, 70001)):
            q, p = (torch.rand(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(2))
            gates = torch.rand(shape[0], 4 * shape[1], *shape[2:], device=device, dtype=dtype, requires_grad=True)
            for outputs in (
                gf.gaussian_rsample_kl(q, p, p, q),
                gf.gaussian_rsample_kl(q, p),
                gf.lstm_gates(gates, q),
                gf.affine_coupling(q, p, q),
                gf.affine_coupling(q, p, q, inverse=True),
            ):
                sum(output.sum() for output in outputs).backward()
print("done")
"""


def test_the_program_itself():
    result = subprocess.run([sys.executable, "-c", PROGRAM, "cpu", "reference"], capture_output=True, text=True)
    assert result.stdout == "done\n", result.stderr


@pytest.mark.gpu
@pytest.mark.skipif("cuda" not in geco_ext.available_backends(), reason="no GPU that the compiled kernels serve")
@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="compute-sanitizer is not installed")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer(tool):
    """Of our kernels, where the tool can tell them; every tensor is an allocation of its own, so that none reaches into
    the next unseen."""
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
    for ours in (["--kernel-regex", "kns=geco"], []):
        result = subprocess.run(
            [*command, *ours, sys.executable, "-c", PROGRAM, "cuda", "cuda"],
            capture_output=True,
            text=True,
            timeout=200,
            env=environment,
        )
        output = result.stdout + result.stderr
        if "unrecogni" not in output:  # other releases call the option otherwise
            break
    assert result.returncode == 0, output[-6000:]
    assert "done" in output

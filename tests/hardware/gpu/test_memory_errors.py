"""compute-sanitizer on a small run: no access outside a tensor, no race in shared memory, nothing read unwritten."""

import os
import re
import shutil
import subprocess
import sys

import pytest

import geco_ext

# All that kernels read comes from the host, by copies that a sanitizer sees: it need not look into PyTorch's kernels.
PROGRAM = """
import sys
import torch, geco_ext
from geco_ext import GECOLoss, LocalStatistics, PatchNCC, ReconstructionError
from geco_ext import functional as gf

device = sys.argv[1]

def rand(*shape, dtype=torch.float32, layout=torch.contiguous_format):
    return torch.rand(shape, dtype=dtype).contiguous(memory_format=layout).to(device)

def ones_like(tensor):
    return torch.ones(tensor.shape, dtype=tensor.dtype).to(device)

with geco_ext.use_backend(sys.argv[2]):
    for dtype in (torch.float32, torch.float16, torch.float64):
        for layout in (torch.contiguous_format, torch.channels_last):
            for constraints in (
                [ReconstructionError(0.1), ReconstructionError(0.2, channels=3, name="channel")],
                [ReconstructionError(0.1), PatchNCC(0.9, 4), LocalStatistics(0.1, 3, stride=2)],
                [ReconstructionError(0.1), PatchNCC(0.9, 8)],
                [PatchNCC(0.9, 5, per_channel=True)],
                [PatchNCC(0.9, 11, per_channel=True)],
                [PatchNCC(0.9, 16)],
            ):
                torch.manual_seed(0)
                criterion = GECOLoss(constraints).to(device)
                x, x_hat = (rand(2, 3, 37, 41, dtype=dtype, layout=layout) for _ in range(2))
                x_hat.requires_grad_()
                for _ in range(2):
                    x_hat.grad = None
                    loss = criterion(x_hat, x, rand(2))
                    loss.backward(ones_like(loss))
                assert int(criterion.steps) == 2
    for dtype in (torch.float32, torch.float16, torch.float64):
        for shape in ((2, 8, 5, 7), (3, 37), (2, 70001)):
            q, p = (rand(*shape, dtype=dtype).requires_grad_() for _ in range(2))
            gates = rand(shape[0], 4 * shape[1], *shape[2:], dtype=dtype).requires_grad_()
            noise = rand(*shape, dtype=dtype)
            for outputs in (
                gf.gaussian_rsample_kl(q, p, p, q, noise=noise),
                gf.gaussian_rsample_kl(q, p, noise=noise),
                gf.lstm_gates(gates, q),
                gf.affine_coupling(q, p, q),
                gf.affine_coupling(q, p, q, inverse=True),
            ):
                torch.autograd.backward(outputs, [ones_like(output) for output in outputs])
print("done")
"""
SECONDS = float(os.environ.get("GECO_EXT_TEST_LONGEST", 185)) - 15


def test_the_program_itself():
    result = subprocess.run([sys.executable, "-c", PROGRAM, "cpu", "reference"], capture_output=True, text=True)
    assert result.stdout == "done\n", result.stderr


@pytest.mark.gpu
@pytest.mark.skipif("cuda" not in geco_ext.available_backends(), reason="no GPU that the compiled kernels serve")
@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="compute-sanitizer is not installed")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer(tool):
    status, output = sanitized(tool, ["cuda", "cuda"])
    found, reason = verdict(status, output)
    if found == "refused":
        pytest.skip(f"{tool}: {reason}")
    assert found == "passed", f"{reason}\n{output[:3000]}\n...\n{output[-3000:]}"


def sanitized(tool, arguments):
    """Exit status (None: it did not end) and output of the program under a tool. Every tensor is an allocation of its
    own, so that no access reaches into the next one unseen."""
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--print-limit", "20"]
    # Of our kernels alone, in the words of several releases; what was not written is known where all writes are seen.
    choices = [["--kernel-name", "kns=geco"], ["--kernel-regex", "kns=geco"], []]
    for ours in choices[2:] if tool == "initcheck" else choices:
        process = subprocess.Popen(
            [*command, *ours, sys.executable, "-c", PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        try:
            output, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return None, process.communicate()[0]
        if not re.search("unrecogni[sz]ed|unknown option|invalid option", output, re.IGNORECASE):
            break
    return process.returncode, output


ERRORS = "Invalid|Uninitialized|Race reported|Barrier error|hazard|Misaligned"


def verdict(status, output):
    """("passed" | "failed" | "refused", why). An error counts where one of our kernels has it."""
    told = [line.removeprefix("=========").strip() for line in output.splitlines() if line.startswith("=========")]
    errors, ours = 0, []
    for part in re.split(r"^=========\s*$", output, flags=re.MULTILINE):
        if re.search(
            r"^========= .*(Invalid|Uninitialized|Race reported|Barrier error|hazard|Misaligned)", part, re.MULTILINE
        ):
            errors += 1
            if "geco" in part:
                ours.append(" ".join(part.split())[:300])
    if ours:
        return "failed", ours[0]
    summaries = [line for line in told if "SUMMARY" in line]
    if "done" in output.split() and summaries and (status == 0 or errors):
        return "passed", f"{errors} errors in kernels of others" if errors else summaries[-1]
    if status is None:
        return "refused", f"it did not end within {SECONDS:.0f} s"
    refusals = [line for line in told if re.search("error|not supported|refer|unable|fail", line, re.IGNORECASE)]
    refusals = [line for line in refusals if "SUMMARY" not in line]
    if refusals and not re.search("CUDA error|AssertionError", output):
        return "refused", " ".join(refusals)[:400]
    return "failed", f"exit status {status}"


OUTPUTS = {
    "passed": (0, "========= COMPUTE-SANITIZER\ndone\n========= ERROR SUMMARY: 0 errors\n"),
    "refused": (
        1,
        "========= COMPUTE-SANITIZER\n========= Internal Sanitizer Error: The Sanitizer encountered an error while "
        "initializing. Device not supported. Please refer to the documentation\n=========\n",
    ),
    "failed": (
        9,
        "========= COMPUTE-SANITIZER\n========= Invalid __global__ write of size 4 bytes\n"
        "=========     at geco::cuda::lagrangian_kernel(geco::cuda::Plan)+0x10\n"
        "=========     by thread (0,0,0) in block (0,0,0)\n=========\ndone\n========= ERROR SUMMARY: 1 error\n",
    ),
}


@pytest.mark.parametrize("expected", OUTPUTS)
def test_what_a_sanitizer_says_is_understood(expected):
    assert verdict(*OUTPUTS[expected])[0] == expected


def test_errors_of_others_and_programs_that_fail():
    status, output = OUTPUTS["failed"]
    assert verdict(status, output.replace("geco::cuda::", "at::native::"))[0] == "passed"
    assert (
        verdict(1, "========= COMPUTE-SANITIZER\nRuntimeError: CUDA error: an illegal memory access\n")[0] == "failed"
    )
    assert (
        verdict(1, "Traceback\nAssertionError\n========= Error: process didn't terminate successfully\n")[0] == "failed"
    )
    assert verdict(None, "========= COMPUTE-SANITIZER\n")[0] == "refused"

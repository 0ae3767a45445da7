import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton

import geco_ext

torch.set_num_threads(1)  # tests run side by side; those about threads ask for more

DEVICES = {"cpu": "cpu", "reference": "cpu", "cuda": "cuda", "triton": "cuda" if torch.cuda.is_available() else "cpu"}


def backend_parameters() -> list:
    """Every backend of the package; one that cannot run here is skipped with its reason."""
    parameters = []
    for name, available, reason in geco_ext.backends.describe():
        marks = [pytest.mark.gpu] if DEVICES[name] == "cuda" else []
        if not available:
            marks.append(pytest.mark.skip(reason=f"{name}: {reason}"))
        parameters.append(pytest.param(name, marks=marks))
    return parameters


@pytest.fixture(params=backend_parameters())
def backend(request):
    """Name of a backend that serves every call of the test."""
    with geco_ext.use_backend(request.param):
        yield request.param


@pytest.fixture
def device(backend):
    return torch.device(DEVICES[backend])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)

import os
import time
import zlib

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton

import interpreter

import geco_ext

interpreter.round_as_devices_do()
pytest.register_assert_rewrite("windows")  # the comparison that many tests share
torch.set_num_threads(1)  # tests run side by side; those about threads ask for more
torch.backends.cudnn.allow_tf32 = False  # the networks of some constraints are compared with float64 too

# Where each backend computes in the tests; the reference on a GPU as well where there is one.
DEVICES = {"cpu": "cpu", "reference": "cpu", "cuda": "cuda", "triton": "cuda" if torch.cuda.is_available() else "cpu"}
if torch.cuda.is_available():
    DEVICES["reference-gpu"] = "cuda"


def backend_parameters() -> list:
    """Every backend of the package; one that cannot run here is skipped with its reason."""
    parameters = []
    described = {name: (available, reason) for name, available, reason in geco_ext.backends.describe()}
    for place, device in DEVICES.items():
        name = place.split("-")[0]
        available, reason = described[name]
        marks = [pytest.mark.gpu] if device == "cuda" else []
        if not available:
            marks.append(pytest.mark.skip(reason=f"{name}: {reason}"))
        parameters.append(pytest.param(place, marks=marks))
    return parameters


def pytest_addoption(parser):
    parser.addoption("--every-case", action="store_true", help="of windowed constraints, interpreted kernels too")


PART = os.environ.get("GECO_EXT_TEST_PART")
SECONDS = float(os.environ.get("GECO_EXT_TEST_SECONDS", "inf"))
_started = time.monotonic()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """``tests/gpu/run.py`` spreads the tests over processes: this one runs the k-th part of n (``k/n``).

    First what is particular to GPUs, then the others in an order of no meaning: where time runs out, some of every kind
    have run.
    """
    if interpreter.IS_USED and not config.getoption("--every-case"):
        interpreter.leave_out_cases(config, items)
    if PART:
        k, n = map(int, PART.split("/"))
        number = {item: zlib.crc32(item.nodeid.encode()) for item in items}
        config.hook.pytest_deselected(items=[item for item in items if number[item] % n != k])
        mine = [item for item in items if number[item] % n == k]
        items[:] = sorted(mine, key=lambda item: (item.path.parent.name != "gpu", number[item]))


def pytest_runtest_setup(item):
    if time.monotonic() - _started > SECONDS:
        pytest.skip(f"left out: {SECONDS:g} s have passed")


@pytest.fixture(params=backend_parameters())
def backend(request):
    """Name of a backend that serves every call of the test."""
    name = request.param.split("-")[0]
    with geco_ext.use_backend(name):
        yield name


@pytest.fixture
def cpu_windows():
    """The C++ kernels serve every call of the test."""
    if "cpu" not in geco_ext.available_backends():
        pytest.skip("the C++ kernels are not built")
    with geco_ext.use_backend("cpu"):
        yield


@pytest.fixture
def slow(backend, device):
    """Whether the backend's kernels are interpreted: the same tests, on smaller images."""
    return backend in ("cuda", "triton") and device.type == "cpu"


@pytest.fixture
def device(backend, request):
    return torch.device(DEVICES[request.node.callspec.params["backend"]])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)

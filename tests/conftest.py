import collections
import faulthandler
import math
import os
import signal
import sys
import time
import zlib

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton

import interpreter

import geco_ext
import geco_ext.ops.dispatch

interpreter.round_as_devices_do()
pytest.register_assert_rewrite("windows", "comparison")  # with the oracle, which many tests share
torch.set_num_threads(1)  # tests run side by side; those about threads ask for more
torch.backends.cudnn.allow_tf32 = False  # the networks of some constraints are compared with float64 too

# A shell lets what it starts in the background ignore Ctrl-C, and so would the commands that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Where each backend computes in the tests; the reference on a GPU as well where there is one.
DEVICES = {"cpu": "cpu", "reference": "cpu", "cuda": "cuda", "triton": "cuda" if torch.cuda.is_available() else "cpu"}
if torch.cuda.is_available():
    DEVICES["reference-gpu"] = "cuda"


def backend_parameters() -> list:
    """Every backend of the package; one that cannot run here is skipped with its reason."""
    parameters = []
    described = {name: (available, reason) for name, available, reason in geco_ext.ops.dispatch.describe()}
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


# What the harness (tests/hardware/gpu) asks for: a clock time after which no test begins, and the seconds one may take.
UNTIL = float(os.environ.get("GECO_EXT_TEST_UNTIL", "inf"))
LONGEST = float(os.environ.get("GECO_EXT_TEST_LONGEST", "inf"))
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if interpreter.IS_USED and not config.getoption("--every-case"):
        interpreter.leave_out_cases(config, items)
    if math.isfinite(UNTIL):
        items[:] = _one_of_each_kind_first(items)


def _one_of_each_kind_first(items):
    """Then a second of each, and so on, in an order of no meaning: where time runs out, all kinds have run."""
    numbered = sorted(items, key=lambda item: zlib.crc32(item.nodeid.encode()))
    seen = collections.Counter()
    rank = {}
    for item in numbered:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        kind = (item.path, item.originalname, parameters.get("backend"), parameters.get("device"))
        rank[item] = seen[kind]
        seen[kind] += 1
    return sorted(numbered, key=rank.get)


def pytest_runtest_setup(item):
    if time.time() > UNTIL:
        pytest.skip("left out: the time was up")
    if IS_WORKER and math.isfinite(LONGEST):  # also where the process waits for a kernel that does not end
        faulthandler.dump_traceback_later(LONGEST, exit=True, file=sys.__stderr__)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish(nodeid):
    """After an illegal address, or a capture that failed, another worker takes over."""
    if IS_WORKER:
        faulthandler.cancel_dump_traceback_later()
        if _is_lost():
            os._exit(1)


def _is_lost():
    """Whether other tests would not find the process as they expect it.

    After an illegal address it gets no answer from its GPU any more. And where ``torch.cuda.graph`` cannot end its
    capture, PyTorch leaves the thread on the capture's stream and its allocator believing in the capture: captures
    that ought to fail succeed then, and ``empty_cache`` returns nothing.
    """
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
        return torch.cuda.current_stream() != torch.cuda.default_stream()
    except RuntimeError:
        return True


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

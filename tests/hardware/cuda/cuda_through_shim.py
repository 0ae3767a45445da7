"""A pytest plugin: the cuda backend on tensors in host memory, its kernels compiled through ``shim.h``.

``GECO_EXT_SHIM_EXTENSION`` is the path of that build of the extension; else it is that of ``make shim``.
"""

import importlib.util
import os
import sys

import pytest
import torch
from shim_build import EXTENSION, ROOT

path = os.environ.get("GECO_EXT_SHIM_EXTENSION", str(ROOT / "build/shim" / EXTENSION))
if not os.path.exists(path):
    raise pytest.UsageError(f"there is no extension {path}; `make shim` builds it")
specification = importlib.util.spec_from_file_location("geco_ext._C", path)
module = importlib.util.module_from_spec(specification)
specification.loader.exec_module(module)
sys.modules["geco_ext._C"] = module

from geco_ext.backends import cuda  # noqa: E402
from geco_ext.ops import dispatch  # noqa: E402

cuda.BACKEND.unavailable = lambda: None
cuda.BACKEND.refuses_device = lambda device: None
cuda.BACKEND.place = lambda tensor: (0, 0)
torch._C._cuda_getCurrentRawStream = lambda index: 0
dispatch._PREFERENCE["cpu"] = ("cpu", "cuda", "reference")


def pytest_sessionstart(session):
    sys.modules["conftest"].DEVICES["cuda"] = "cpu"

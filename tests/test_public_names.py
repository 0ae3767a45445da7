"""The package's names: what `dir` and `*` show, and that they are loaded when first asked for."""

import subprocess
import sys

import pytest

import geco_ext
from geco_ext import functional


def test_dir_shows_all_public_names():
    assert set(geco_ext.__all__) <= set(dir(geco_ext))
    assert {"models", "data", "load_run", "functional"} <= set(dir(geco_ext))
    assert all(getattr(geco_ext, name) is not None for name in geco_ext.__all__)


def test_functional_has_public_functions_alone():
    assert functional.__all__ == sorted(functional.__all__)
    for name in functional.__all__:
        assert not name.startswith("_")
        assert callable(getattr(functional, name))
        assert getattr(functional, name).__doc__


def test_what_there_is_not():
    with pytest.raises(AttributeError, match="module 'geco_ext' has no attribute 'nope'"):
        _ = geco_ext.nope
    with pytest.raises(ImportError, match="nope"):
        from geco_ext import nope  # noqa: F401


def test_names_and_modules_are_loaded_when_first_asked_for():
    code = (
        "import sys, geco_ext; assert 'torch' not in sys.modules; loss = geco_ext.GECOLoss; "
        "assert loss is geco_ext.criterion.GECOLoss; assert 'lightning' not in sys.modules; "
        "assert hasattr(geco_ext.ops.dispatch, 'choose'); import torch; torch.ops.geco_ext.training_loss"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

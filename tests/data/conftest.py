import importlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from loopback import serving


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own; not there yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GECO_EXT_DATA", str(folder))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def loopback(cache):
    with serving() as server:
        yield server


@pytest.fixture
def read_only():
    """A function that makes a folder read-only for this process, which for a while is not root if it was.

    The folder lies outside pytest's, where only its user may enter. What is imported on first use is imported before,
    since the interpreter itself may lie where only root may read.
    """
    for name in ("pooch", "requests", "tqdm", "PIL.Image"):
        importlib.import_module(name)
    folder = Path(tempfile.mkdtemp(prefix="geco_ext_test_"))
    user = os.geteuid()

    def protect():
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        if user == 0:
            os.seteuid(65534)  # nobody
        return folder

    protect.folder = folder
    yield protect
    os.seteuid(user)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)

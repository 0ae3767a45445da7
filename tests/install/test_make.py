"""What ``make demo`` and ``make test`` do again, and what they do not."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD, TEST_PACKAGES = '--editable ".[train]"', '"geco-ext[test]"'

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def clone(tmp_path):
    """A clone whose sources are older than what was installed."""
    for name in ("Makefile", "pyproject.toml", "setup.py", "CMakeLists.txt", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("csrc/step.cpp", "cmake/choose.cmake", "geco_ext/criterion.py", ".venv/train.installed"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for file in tmp_path.rglob("*"):
        os.utime(file, (1000, 1000))
    os.utime(tmp_path / ".venv" / "train.installed", (2000, 2000))
    return tmp_path


def would_run(clone, target):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", target]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=True).stdout


def test_after_the_demo_nothing_is_compiled_again(clone):
    demo = would_run(clone, "demo")
    assert "geco train" in demo
    assert "install" not in demo
    first = would_run(clone, "test")
    assert BUILD not in first
    assert TEST_PACKAGES in first
    (clone / ".venv" / "test.installed").touch()
    assert would_run(clone, "test").splitlines() == [first.splitlines()[-1]]


@pytest.mark.parametrize(
    ("file", "builds"), [("csrc/step.cpp", True), ("cmake/choose.cmake", True), ("geco_ext/criterion.py", False)]
)
def test_a_change_builds_again_where_it_is_of_the_extension(clone, file, builds):
    os.utime(clone / file, (3000, 3000))
    assert (BUILD in would_run(clone, "demo")) == builds

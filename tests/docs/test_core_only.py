"""What the README and the examples show runs with what ``pip install .`` brings, and the rest says what to install."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALL = 'pip install ".[train]" in a clone of geco_ext'
HEAD = "import core_only; blocked = core_only.block_all_but({requirements!r})\n"


def core_requirements():
    tomllib = pytest.importorskip("tomllib", reason="comes with Python 3.11")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


def run(code, tmp_path, *arguments):
    path = os.pathsep.join([str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", HEAD.format(requirements=core_requirements()) + code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "GECO_EXT_DATA": str(tmp_path / "cache")},
    )


def test_the_sample_and_the_examples_need_no_extra(tmp_path):
    (sample,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    shorter = sample.replace("range(40)", "range(1)")
    assert shorter != sample
    examples = sorted(str(file) for file in (ROOT / "examples").glob("*.py"))
    assert len(examples) == 2
    code = f"""
assert {{"lightning", "matplotlib", "pooch", "typer"}} <= blocked and not {{"torch", "sklearn"}} & blocked
exec({shorter!r}, {{}})
import runpy, sys
for example in {examples!r}:
    sys.argv = [example, "--steps", "2"]
    runpy.run_path(example, run_name="__main__")
import geco_ext.data
print(geco_ext.data.load("patches", size=8).image_shape)
"""
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "constraint/reconstruction_error" in done.stdout
    assert done.stdout.count("step 2:") == 2
    assert done.stdout.endswith("(3, 8, 8)\n")


def test_what_is_missing_says_what_to_install(tmp_path):
    code = """
import sys
from geco_ext.cli import main
import geco_ext.data
try:
    geco_ext.data.load("mnist")
except ModuleNotFoundError as error:
    print(error)
sys.exit(main(["train"]))
"""
    done = run(code, tmp_path)
    assert done.stdout == f"pooch is not installed; downloads need: {INSTALL}\n"
    assert done.stderr == f"geco: error: typer is not installed; the commands need: {INSTALL}\n"
    assert done.returncode == 2

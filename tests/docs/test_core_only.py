"""What the README and the examples show runs with what ``pip install .`` brings, and the rest says what to install."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALL = 'pip install ".[train]" in a clone of geco_ext'
CODE = """
import core_only

blocked = core_only.block_all_but({requirements!r})
assert {{"lightning", "matplotlib", "pooch", "typer"}} <= blocked and not {{"torch", "sklearn"}} & blocked

exec({sample!r}, {{}})

import runpy, sys
for example in {examples!r}:
    sys.argv = [example, "--steps", "2"]
    runpy.run_path(example, run_name="__main__")

import geco_ext.data
print(geco_ext.data.load("patches", size=8).image_shape)
try:
    geco_ext.data.load("mnist")
except ModuleNotFoundError as error:
    print(error)

from geco_ext.cli import main
sys.exit(main(["train"]))
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A process to which what the core does not bring is not there."""
    tomllib = pytest.importorskip("tomllib", reason="comes with Python 3.11")
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (sample,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    shorter = sample.replace("range(40)", "range(1)")
    assert shorter != sample
    examples = sorted(map(str, (ROOT / "examples").glob("*.py")))
    assert len(examples) == 2
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", "")]),
        "GECO_EXT_DATA": str(tmp_path_factory.mktemp("cache")),
    }
    code = CODE.format(requirements=requirements, sample=shorter, examples=examples)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)


def test_the_sample_and_the_examples_need_no_extra(done):
    assert "Traceback" not in done.stderr
    assert "constraint/reconstruction_error" in done.stdout
    assert done.stdout.count("step 2:") == 2
    assert "\n(3, 8, 8)\n" in done.stdout


def test_what_is_missing_says_what_to_install(done):
    assert done.stdout.endswith(f"\npooch is not installed; downloads need: {INSTALL}\n")
    assert done.stderr.splitlines()[-1] == f"geco: error: typer is not installed; the commands need: {INSTALL}"
    assert done.returncode == 2

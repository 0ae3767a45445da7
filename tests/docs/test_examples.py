import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda example: example.stem)
def test_an_example_runs_and_prints_finite_numbers(example):
    done = subprocess.run(
        [sys.executable, str(example), "--steps", "20"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "step 20:" in done.stdout
    assert "nan" not in done.stdout


def test_the_custom_constraint_trains_with_geco(tmp_path):
    pytest.importorskip("lightning")
    from geco_ext.cli import main

    constraint = f"{EXAMPLES / 'custom_constraint.py'}:EdgeError=0.2"
    options = [
        "--constraint",
        "re=0.3",
        "--constraint",
        constraint,
        "--size",
        "8",
        "--steps",
        "3",
        "--accelerator",
        "cpu",
    ]
    assert main(["train", *options, "--out", str(tmp_path / "run")]) == 0
    assert "edge_error" in (tmp_path / "run" / "results.md").read_text()

"""What the documentation shows runs as it stands there."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import geco_ext
import geco_ext.models

ROOT = Path(__file__).resolve().parents[2]


def modules():
    names = ["geco_ext"]
    for package in (geco_ext, geco_ext.models):
        names += [info.name for info in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
    return sorted(name for name in set(names) if not name.endswith("._C") and ".triton.kernels" not in name)


@pytest.mark.parametrize("name", modules())
def test_docstring_examples(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"torch": torch, "geco_ext": geco_ext})
    assert result.failed == 0


def test_the_example_of_the_readme():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names = {}
    exec(code, names)
    assert int(names["criterion"].steps) == 40 * 12  # passes over 1500 digits
    metrics = names["criterion"].metrics()
    assert all(value.isfinite() for value in metrics.values())
    assert metrics["moving_average/reconstruction_error"] < 0.05 * 0.1**2


def test_the_examples_of_the_page_on_latents(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "latents.md").read_text(), re.DOTALL)
    names = {}
    for code in blocks:
        if "onnx" not in code:  # which tests/models/test_export.py does
            exec(code, names)
    assert names["images"].shape == names["new"].shape == names["x"].shape
    assert names["way"].shape == (5, 4, 1, 16, 16)
    assert {path.name for path in tmp_path.iterdir()} == {"encoder.pt2", "model.safetensors", "criterion.safetensors"}


def test_every_link_of_the_readme_leads_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []

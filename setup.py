"""Package layout: the folders at the top level become one package, geco_ext; and whether it has its extension."""

import sys
from pathlib import Path

import setuptools
from scikit_build_core.setuptools.wrapper import setup

sys.path.insert(0, str(Path(__file__).parent / "cmake"))
import cxx_compiler

FOLDERS = {"geco_ext": "geco_ext", "geco_ext.models": "models", "geco_ext.experiments": "experiments"}
BUILDING = {"dist_info", "bdist_wheel", "editable_wheel", "build", "build_ext", "install", "develop"}
"""Commands that make the extension. pip's first is dist_info: what is missing is said before PyTorch is downloaded."""

packages = [
    name if part == "" else f"{name}.{part}"
    for name, folder in FOLDERS.items()
    for part in ["", *setuptools.find_packages(folder)]
]
layout = {
    "packages": packages,
    "package_dir": FOLDERS,
    "package_data": {"geco_ext": ["py.typed", "*.pyi"]},
}

if not cxx_compiler.extension_is_wanted():
    setuptools.setup(**layout)  # its wheel is py3-none-any
elif BUILDING & set(sys.argv) and (problem := cxx_compiler.problem()):
    sys.exit(problem)
else:
    if BUILDING & set(sys.argv):
        cxx_compiler.choose()
    setup(cmake_source_dir=".", **layout)

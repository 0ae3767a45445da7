"""Package layout: the folders at the top level become one package, geco_ext."""

from scikit_build_core.setuptools.wrapper import setup
from setuptools import find_packages

FOLDERS = {"geco_ext": "geco_ext", "geco_ext.models": "models", "geco_ext.experiments": "experiments"}

packages = [
    name if part == "" else f"{name}.{part}"
    for name, folder in FOLDERS.items()
    for part in ["", *find_packages(folder)]
]

setup(
    cmake_source_dir=".",
    packages=packages,
    package_dir=FOLDERS,
    package_data={"geco_ext": ["py.typed", "*.pyi"]},
)

"""The package's modules import each other downwards only: what is built on a layer is unknown to it.

`geco_ext` itself stands above the criterion and what that is made of; `data`, `models` and `load_run` are imported when
it is first asked for them.
"""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {
    "geco_ext": ROOT / "geco_ext",
    "geco_ext.models": ROOT / "models",
    "geco_ext.experiments": ROOT / "experiments",
}
LAYERS = (
    ("geco_ext.__main__",),
    ("geco_ext.cli",),
    ("geco_ext.experiments",),
    ("geco_ext.training",),
    ("geco_ext.models", "geco_ext.data"),
    ("geco_ext",),
    ("geco_ext.criterion",),
    ("geco_ext.criterion_arguments", "geco_ext.loaded_state", "geco_ext.functional"),
    ("geco_ext.constraints", "geco_ext.state_module"),
    ("geco_ext.weights",),
    ("geco_ext.ops",),
    ("geco_ext.backends",),
    (
        *("geco_ext.contract", "geco_ext.state", "geco_ext.checks", "geco_ext.multiplier", "geco_ext.schedule"),
        *("geco_ext.files", "geco_ext.warn"),
    ),
)
"""From the top; a module belongs to the entry with the longest name that it lies in."""


def sources() -> dict[str, Path]:
    """The file of every module."""
    found = {}
    for package, folder in FOLDERS.items():
        for file in folder.rglob("*.py"):
            parts = file.relative_to(folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = file
    return found


SOURCES = sources()


def imports(name: str) -> set[str]:
    """The modules of the package that one imports, anywhere but for types alone."""
    package = name if SOURCES[name].stem == "__init__" else name.rpartition(".")[0]
    found = set()
    for node in statements(ast.parse(SOURCES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            place = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module if (module := f"{place}.{alias.name}") in SOURCES else place for alias in node.names}
    return {module for module in found if module in SOURCES and module != name}


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from statements(node)


GRAPH = {name: imports(name) for name in SOURCES}


def layer(name: str) -> int:
    lies_in = {p: index for index, packages in enumerate(LAYERS) for p in packages if f"{name}.".startswith(f"{p}.")}
    return lies_in[max(lies_in, key=len)]


def test_no_module_imports_itself_by_way_of_others():
    TopologicalSorter(GRAPH).prepare()  # says which do


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_imports_lead_downwards(name):
    upwards = {other for other in GRAPH[name] if layer(other) < layer(name)}
    assert not upwards
    beside = {other for other in GRAPH[name] if layer(other) == layer(name) and package(other) != package(name)}
    assert layer(name) == len(LAYERS) - 1 or not beside


def package(name: str) -> str:
    return ".".join(name.split(".")[:2])

"""Classes of a user's own, from the text that names them: ``mine.py:Mine(0.1)``, ``package.module:Mine``."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from geco_ext.training.calls import Call, parse_call

Change = Callable[[str], str]
"""What is made of the path of a file."""


def own_class(call: Call, bases: tuple[type, ...]) -> type:
    """Import the module or run the file that a call names, and give the class.

    Raises:
        ValueError: no such file or module, one that fails, or no class of that name with one of the ``bases``.
    """
    file = Path(call.place).expanduser()
    module = _module_in_file(file) if call.place.endswith(".py") else _module_named(call.place)
    cls = getattr(module, call.name, None)
    if not (inspect.isclass(cls) and issubclass(cls, bases)):
        expected = " or ".join(map(_public_name, bases))
        if cls is None:
            raise ValueError(f"{call.place} has no {expected} subclass {call.name!r}")
        raise ValueError(f"{call.name!r} in {call.place} is no subclass of {expected}")
    return cls


def _public_name(base: type) -> str:
    places = ("torch.nn", "geco_ext.training", "geco_ext")
    return f"{next(place for place in places if base.__module__.startswith(place))}.{base.__name__}"


def _module_named(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the user's own module raises
        raise ValueError(f"cannot import {name!r} ({type(error).__name__}: {error})") from error


def _module_in_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise ValueError(f"no file {file}")
    specification = importlib.util.spec_from_file_location(file.stem, file)
    assert specification is not None  # a name that ends in .py always has a loader
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules.setdefault(file.stem, module)  # dataclasses and pickling look their module up by name
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(file.stem, None)
        raise ValueError(f"{file} fails ({type(error).__name__}: {error})") from error
    return module


def own_call(text: str) -> Call | None:
    """The call of a class of a user's own, with parentheses or without; None where no place is named.

    Example:
        >>> str(own_call("mine.py:Mine")), own_call("elbo")
        ('mine.py:Mine()', None)
    """
    try:
        call = parse_call(text if text.rstrip().endswith(")") else f"{text}()")
    except ValueError:
        return None
    return call if call.place else None


def incomplete(text: str) -> str | None:
    """What a text lacks that is nearly a call: its last bracket, or the class in a file; None where it is neither.

    The file is read, not run.

    Example:
        >>> incomplete("PatchNCC(0.9, patch_size=4")
        "a bracket is not closed; did you mean 'PatchNCC(0.9, patch_size=4)'?"
        >>> incomplete("nowhere.py=0.1")
        'no file nowhere.py'
    """
    text = text.strip()
    if own_call(text) is not None:
        return None
    if not text.endswith(")") and text.count("(") > text.count(")"):
        return f"a bracket is not closed; did you mean {text + ')'!r}?"
    found = re.match(r"(.*?\.py):?($|[=(].*)", text)
    if found is None:
        return None
    file, arguments = found.groups()
    path = Path(file).expanduser()
    if not path.is_file():
        return f"no file {file}"
    classes = _classes_in(path)
    of_several = f"; its classes are {', '.join(classes)}" if len(classes) > 1 else ""
    return f"name the class, {file}:{classes[0] if len(classes) == 1 else 'Class'}{arguments}{of_several}"


def _classes_in(file: Path) -> list[str]:
    try:
        statements = ast.parse(file.read_text()).body
    except (OSError, SyntaxError, ValueError):
        return []
    return [each.name for each in statements if isinstance(each, ast.ClassDef)]


def with_changed_place(text: str, change: Change) -> str:
    """The text with the path of its file changed, if it names one.

    Example:
        >>> with_changed_place("mine.py:Mine", lambda path: f"/home/{path}"), with_changed_place("nvp", str.upper)
        ('/home/mine.py:Mine', 'nvp')
    """
    call = own_call(text)
    if call is None or not call.place.endswith(".py"):
        return text
    changed = replace(call, place=change(call.place))
    return str(changed) if text.rstrip().endswith(")") else f"{changed.place}:{changed.name}"


def absolute(path: str) -> str:
    """A path that means the same file from any folder."""
    return str(Path(path).expanduser().resolve())

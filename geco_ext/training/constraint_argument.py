"""Constraints as they are written on the command line."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import geco_ext
from geco_ext import ClassificationAccuracy, Constraint, FeatureReconstructionError, LocalStatistics, PatchNCC
from geco_ext.training.classifier_checkpoint import ClassifierCheckpoint

PATCH_SIZE = 8
"""Side of the patches in pixels where the argument names none."""

WITHOUT_PATCH = {"re": "ReconstructionError"}
WITH_PATCH = {"pncc": "PatchNCC", "local": "LocalStatistics"}
WITH_CHECKPOINT = ("cla", "fre")
KNOWN = (
    "re=KAPPA, pncc=KAPPA[:PATCH], local=KAPPA[:PATCH], cla=KAPPA:CHECKPOINT, fre=KAPPA:CHECKPOINT, "
    "module:Class[=KAPPA], file.py:Class[=KAPPA]"
)


def build_constraints(texts: Sequence[str]) -> list[Constraint]:
    """The constraints of a run; of several on patches each is named after its patch size.

    Raises:
        ValueError: see :func:`build_constraint`; or the same constraint twice.

    Example:
        >>> [constraint.name for constraint in build_constraints(["re=0.1", "pncc=0.9:4", "pncc=0.8:8"])]
        ['reconstruction_error', 'patch_ncc_4', 'patch_ncc_8']
    """
    constraints = [build_constraint(text) for text in texts]
    names = [constraint.name for constraint in constraints]
    for constraint, name in zip(constraints, names, strict=True):
        if names.count(name) > 1 and isinstance(constraint, PatchNCC | LocalStatistics):
            constraint.name = f"{name}_{constraint.patch_size}"
    names = [constraint.name for constraint in constraints]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(f"constraint: {', '.join(sorted(repeated))} is asked for more than once in {', '.join(texts)}")
    return constraints


def build_constraint(text: str) -> Constraint:
    """One constraint: ``re=0.1``, ``pncc=0.9:8``, ``local=0.05:4``, ``cla=0.9:FILE``, ``file.py:Class=0.2``...

    ``cla`` and ``fre`` take a checkpoint of `geco train-classifier`; the kappa of ``fre`` is in units of the standard
    deviation of the features over the training set of that classifier, see :meth:`ClassifierCheckpoint.extractor`. A
    user's own class is called with the number after ``=`` if there is one, and without arguments if not.

    Raises:
        ValueError: an unknown name (the message lists the known ones), a missing or unusable number, a file that is
            no checkpoint of a classifier, or a class that cannot be imported, is no :class:`geco_ext.Constraint` or
            refuses its argument.

    Example:
        >>> build_constraint("pncc=0.9:4").patch_size
        4
    """
    name, _, number = text.partition("=")
    if name in WITH_CHECKPOINT:
        return _with_checkpoint(text, name, number)
    name, _, number = text.rpartition("=") if "=" in text else (text, "", "")
    if ":" in name:
        return _own_constraint(text, name, number)
    if name not in WITHOUT_PATCH and name not in WITH_PATCH:
        raise ValueError(f"unknown constraint {text!r}; known are {KNOWN}")
    kappa, separator, patch = number.partition(":")
    if separator and name in WITHOUT_PATCH:
        raise ValueError(f"constraint {text!r}: {name} takes no patch size")
    arguments = {"patch_size": _integer(text, patch) if separator else PATCH_SIZE} if name in WITH_PATCH else {}
    class_name = {**WITHOUT_PATCH, **WITH_PATCH}[name]
    return _constructed(text, getattr(geco_ext, class_name), _number(text, kappa), **arguments)


def _with_checkpoint(text: str, name: str, argument: str) -> Constraint:
    kappa, _, file = argument.partition(":")
    number = _number(text, kappa)
    if not file:
        raise ValueError(f"constraint {text!r}: {name} needs a checkpoint of geco train-classifier, {name}=KAPPA:FILE")
    try:
        checkpoint = ClassifierCheckpoint.read(Path(file).expanduser())
        if name == "cla":
            return ClassificationAccuracy(number, checkpoint.classifier(), gradient="log_probability")
        return FeatureReconstructionError(number, checkpoint.extractor())
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"constraint {text!r}: {error}") from error


def _number(text: str, digits: str) -> float:
    try:
        return float(digits)
    except ValueError:
        raise ValueError(f"constraint {text!r}: kappa must be a number, got {digits!r}; known are {KNOWN}") from None


def _integer(text: str, digits: str) -> int:
    try:
        return int(digits)
    except ValueError:
        raise ValueError(f"constraint {text!r}: the patch size must be an integer, got {digits!r}") from None


def _constructed(text: str, cls: type[Constraint], *arguments: float, **named: int) -> Constraint:
    try:
        return cls(*arguments, **named)  # type: ignore[arg-type]  # a subclass chooses its own arguments
    except (TypeError, ValueError) as error:
        raise ValueError(f"constraint {text!r}: {error}") from error


def _own_constraint(text: str, name: str, number: str) -> Constraint:
    place, _, class_name = name.rpartition(":")
    module = _module_in_file(text, Path(place).expanduser()) if place.endswith(".py") else _module_named(text, place)
    cls = getattr(module, class_name, None)
    if not (inspect.isclass(cls) and issubclass(cls, Constraint)):
        raise ValueError(f"constraint {text!r}: {place} has no geco_ext.Constraint subclass {class_name!r}")
    return _constructed(text, cls, *([_number(text, number)] if number else []))


def _module_named(text: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the user's own module raises
        raise ValueError(f"constraint {text!r}: cannot import {name!r} ({type(error).__name__}: {error})") from error


def _module_in_file(text: str, file: Path) -> ModuleType:
    if not file.is_file():
        raise ValueError(f"constraint {text!r}: no file {file}")
    specification = importlib.util.spec_from_file_location(file.stem, file)
    assert specification is not None  # a name that ends in .py always has a loader
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules.setdefault(file.stem, module)  # dataclasses and pickling look their module up by name
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(file.stem, None)
        raise ValueError(f"constraint {text!r}: {file} fails ({type(error).__name__}: {error})") from error
    return module


def with_absolute_file(text: str) -> str:
    """The constraint with a file's path made absolute, so that a run can be resumed from any folder."""
    name, _, number = text.partition("=")
    if name in WITH_CHECKPOINT:
        kappa, colon, file = number.partition(":")
        return f"{name}={kappa}:{Path(file).expanduser().resolve()}" if colon and file else text
    name, equals, number = text.rpartition("=") if "=" in text else (text, "", "")
    place, _, class_name = name.rpartition(":")
    return f"{Path(place).expanduser().resolve()}:{class_name}{equals}{number}" if place.endswith(".py") else text

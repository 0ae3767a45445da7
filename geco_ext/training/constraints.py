"""The constraints of a run, from the texts of the command line."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geco_ext import ClassificationAccuracy, Constraint, KappaSchedule, LocalStatistics, PatchNCC, constraints
from geco_ext.checks import NoToleranceError
from geco_ext.constraints.base import check_initialised
from geco_ext.constraints.frozen import NetworkConstraint
from geco_ext.data import ImageDataset
from geco_ext.nearest import did_you_mean
from geco_ext.training.calls import Call, UnreadableText, parse_call
from geco_ext.training.classifier_checkpoint import ClassifierCheckpoint, number_of_classes
from geco_ext.training.own_code import Change, absolute, incomplete, own_class, with_changed_place

PATCH_SIZE = 8
"""Side of the patches in pixels where ``pncc`` and ``local`` name none."""

SHORT_NAMES = {
    "re": "ReconstructionError",
    "pncc": "PatchNCC",
    "local": "LocalStatistics",
    "cla": "ClassificationAccuracy",
    "fre": "FeatureReconstructionError",
}
NETWORKS = {"classifier": ClassifierCheckpoint.classifier, "extractor": ClassifierCheckpoint.extractor}
"""Arguments that are networks, and how a checkpoint of `geco train-classifier` gives each."""

USAGE = {
    "ReconstructionError": "re=KAPPA",
    "PatchNCC": "pncc=KAPPA[:PATCH]",
    "LocalStatistics": "local=KAPPA[:PATCH]",
    "ClassificationAccuracy": "cla=KAPPA:CHECKPOINT",
    "FeatureReconstructionError": "fre=KAPPA:CHECKPOINT",
}
"""The short forms, as help shows them."""

CLASSES: dict[str, type[Constraint]] = {
    name: getattr(constraints, name) for name in constraints.__all__ if name != "Constraint"
}
HELP = "geco list constraints says what there is and how it is written"


def build_constraints(texts: Sequence[str]) -> list[Constraint]:
    """The constraints of a run; of several on patches each is named after its patch size.

    Raises:
        ValueError: a text that :func:`build_constraint` refuses; or the same constraint twice.

    Example:
        >>> [constraint.name for constraint in build_constraints(["re=0.1", "pncc=0.9:4", "pncc=0.8:8"])]
        ['reconstruction_error', 'patch_ncc_4', 'patch_ncc_8']
    """
    built = [build_constraint(text) for text in texts]
    names = [constraint.name for constraint in built]
    for constraint, name in zip(built, names, strict=True):
        if names.count(name) > 1 and isinstance(constraint, PatchNCC | LocalStatistics):
            constraint.name = f"{name}_{constraint.patch_size}"
    names = [constraint.name for constraint in built]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(f"constraint: {', '.join(sorted(repeated))} is asked for more than once in {', '.join(texts)}")
    return built


def set_schedules(constraints: Sequence[Constraint], steps: int, start: float | None, shape: str) -> None:
    """Have the kappa of every constraint tighten over ``steps`` to what it is; ``start`` None: from the first error.

    Raises:
        ValueError: a start that is tighter than the kappa of a constraint, or that it cannot have.
    """
    for constraint in constraints:
        try:
            constraint.kappa = KappaSchedule(
                constraint.kappa_target,
                steps,
                "auto" if start is None else start,
                shape,  # type: ignore[arg-type]
            )
        except ValueError as error:
            raise ValueError(f"kappa schedule of constraint {constraint.name!r}: {error}") from error


def build_constraint(text: str) -> Constraint:
    """One constraint, from a short form or from a call in Python's syntax whose arguments are literals.

    The arguments of a call are those of the class. Where it takes a network, ``classifier`` or ``extractor``, the name
    of a checkpoint of `geco train-classifier` stands for it; kappa of features is then in units of their standard
    deviation over the training set of that classifier, see :meth:`ClassifierCheckpoint.extractor`.

    Raises:
        ValueError: an unknown name (the message lists the known ones), what the class refuses, a file that is no
            checkpoint of a classifier, or a class that cannot be imported or is no :class:`geco_ext.Constraint`.

    Example:
        >>> build_constraint("pncc=0.9:4").patch_size
        4
        >>> build_constraint("PatchNCC(0.9, patch_size=4, stride=2)").stride
        2
    """
    call = _read(text)
    try:
        return _called(own_class(call, (Constraint,)) if call.place else CLASSES[call.name], call)
    except NoToleranceError as error:
        raise NoToleranceError(f"constraint {text!r}: {error}") from error
    except (TypeError, ValueError, FileNotFoundError) as error:
        raise ValueError(f"constraint {text!r}: {error}") from error


def in_call_syntax(text: str) -> str:
    """A short form as the call it stands for; a call as it is.

    Raises:
        ValueError: neither.

    Example:
        >>> in_call_syntax("pncc=0.9:4")
        'PatchNCC(kappa=0.9, patch_size=4)'
        >>> in_call_syntax("cla=0.9:conv.pt")
        "ClassificationAccuracy(kappa=0.9, classifier='conv.pt', gradient='log_probability')"
        >>> in_call_syntax("mine.py:Mine=0.2")
        'mine.py:Mine(0.2)'
    """
    name, _, rest = text.partition("=")
    if name not in SHORT_NAMES:
        if (lacking := incomplete(text)) is not None:
            raise UnreadableText(f"constraint {text!r}: {lacking}")
        return text if text.rstrip().endswith(")") else _own_in_call_syntax(text)
    kappa, colon, more = rest.partition(":")
    named: dict[str, Any] = {"kappa": _number(text, kappa)}
    if name == "re" and colon:
        raise UnreadableText(f"constraint {text!r}: re takes no patch size")
    if name in ("pncc", "local"):
        named["patch_size"] = _integer(text, more) if colon else PATCH_SIZE
    if name in ("cla", "fre"):
        if not more:
            raise UnreadableText(
                f"constraint {text!r}: {name} needs a checkpoint of geco train-classifier, {name}=KAPPA:FILE"
            )
        named["classifier" if name == "cla" else "extractor"] = more
    if name == "cla":
        named["gradient"] = "log_probability"  # with which the constraint is met alone as well
    return str(Call(SHORT_NAMES[name], (), named))


def is_own(text: str) -> bool:
    """Whether a constraint is a class of the user's own, whose code is imported to build it.

    Example:
        >>> is_own("mine.py:Mine=0.2"), is_own("re=0.1")
        (True, False)
    """
    return bool(_read(text).place)


def with_changed_files(text: str, change: Change = absolute) -> str:
    """The constraint with the paths of its files changed: made absolute, so that a run can be resumed from any folder.

    Example:
        >>> with_changed_files("cla=0.9:conv.pt", lambda path: f"runs/{path}")
        'cla=0.9:runs/conv.pt'
    """
    name, _, rest = text.partition("=")
    if name in ("cla", "fre"):
        kappa, colon, file = rest.partition(":")
        return f"{name}={kappa}:{change(file)}" if colon and file else text
    if text.rstrip().endswith(")") and name not in SHORT_NAMES:
        return _call_with_changed_files(text, change)
    name, equals, number = text.rpartition("=") if "=" in text else (text, "", "")
    return with_changed_place(name, change) + equals + number


def _call_with_changed_files(text: str, change: Change) -> str:
    try:
        call = parse_call(text)
        if call.place:
            return with_changed_place(text, change)
        arguments = inspect.signature(CLASSES[call.name]).bind(*call.arguments, **call.named).arguments
    except (KeyError, TypeError, ValueError):
        return text  # refused where it is built
    files = {name: change(file) for name, file in arguments.items() if name in NETWORKS and isinstance(file, str)}
    return str(Call(call.name, (), arguments | files)) if files else text


def _own_in_call_syntax(text: str) -> str:
    name, _, number = text.rpartition("=") if "=" in text else (text, "", "")
    if ":" not in name:
        raise _unknown(text, name)
    return f"{name}({_number(text, number) if number else ''})"


def _number(text: str, digits: str) -> float:
    try:
        number = float(digits)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UnreadableText(f"constraint {text!r}: kappa must be a number, got {digits!r}; {HELP}")
    return number


def _integer(text: str, digits: str) -> int:
    try:
        return int(digits)
    except ValueError:
        raise UnreadableText(f"constraint {text!r}: the patch size must be an integer, got {digits!r}") from None


def _read(text: str) -> Call:
    try:
        call = parse_call(in_call_syntax(text))
    except UnreadableText:
        raise
    except ValueError as error:
        raise UnreadableText(f"constraint {text!r}: {error}; {HELP}") from error
    if not call.place and call.name not in CLASSES:
        raise _unknown(text, call.name)
    return call


def _unknown(text: str, name: str) -> UnreadableText:
    usage = {short: USAGE[long] for short, long in SHORT_NAMES.items()}
    meant = did_you_mean(name.strip(), [*SHORT_NAMES, *CLASSES], usage)
    known = f"; known are {', '.join([*SHORT_NAMES, *CLASSES])}, file.py:Class, module:Class"
    return UnreadableText(f"unknown constraint {text!r}{meant or known}; {HELP}")


def _called(cls: type[Constraint], call: Call) -> Constraint:
    signature = inspect.signature(cls)
    try:
        if call.place:
            return check_initialised(cls(*call.arguments, **call.named))
        if not signature.parameters.keys() & NETWORKS:
            return cls(*call.arguments, **call.named)
        arguments = signature.bind(*call.arguments, **call.named).arguments
    except TypeError as error:
        raise TypeError(f"{error}; the arguments of {call.name} are {', '.join(signature.parameters)}") from error
    except ValueError:
        raise
    except Exception as error:  # whatever a class of a user's own raises
        raise ValueError(f"it cannot be made ({type(error).__name__}: {error})") from error
    for name in arguments.keys() & NETWORKS:
        if isinstance(arguments[name], str):
            arguments[name] = NETWORKS[name](ClassifierCheckpoint.read(Path(arguments[name]).expanduser()))
    return cls(**arguments)


def without_tolerance(text: str, constraint: Constraint) -> bool:
    """Whether a constraint of a user's own has a kappa of zero that nobody has asked for, and no scale either.

    Then ``error - self.kappa`` demands an error of zero, and violations are measured in units of 1.
    """
    call = _read(text)
    is_asked_for = bool(call.arguments) or "kappa" in call.named
    return bool(call.place) and not is_asked_for and constraint.kappa == 0 and constraint.scale is None


def check_networks(texts: Sequence[str], constraints: Sequence[Constraint], dataset: ImageDataset, data: str) -> None:
    """Refuse a checkpoint of `geco train-classifier` that was trained on images or classes of another kind.

    Networks of a user's own say nothing of what they were trained on and are not checked here.

    Args:
        texts: the constraints as written on the command line.
        constraints: what was built from them.
        dataset: the training set.
        data: its name.

    Raises:
        ValueError: another shape of images; for CLA, another number of classes, or labels that are no classes.
    """
    for text, constraint in zip(texts, constraints, strict=True):
        network = constraint._network[0] if isinstance(constraint, NetworkConstraint) else None
        image_shape, classes = getattr(network, "image_shape", None), getattr(network, "classes", None)
        if image_shape is not None and tuple(image_shape) != dataset.image_shape:
            raise ValueError(
                f"constraint {text!r}: the classifier takes images of shape (C, H, W) = {tuple(image_shape)}, "
                f"data {data!r} has {dataset.image_shape}"
            )
        if isinstance(constraint, ClassificationAccuracy):
            _check_classes(text, classes, dataset, data)


def _check_classes(text: str, classes: int | None, dataset: ImageDataset, data: str) -> None:
    try:
        found = number_of_classes(dataset)
    except ValueError as error:
        raise ValueError(f"constraint {text!r} cannot be used with data {data!r}: {error}") from error
    may_lack_some = classes is not None and len(dataset) < classes  # a handful of examples cannot show all classes
    if classes is not None and found != classes and not (may_lack_some and found < classes):
        raise ValueError(f"constraint {text!r}: the classifier knows {classes} classes, data {data!r} has {found}")

"""`geco list`: what the options of `geco train` may name."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from geco_ext.cli.failure import CommandFailure
from geco_ext.cli.output import AsJson, print_json
from geco_ext.nearest import did_you_mean

Kind = Annotated[
    Optional[str],  # noqa: UP045 - typer reads it at run time, on Python 3.10 too
    typer.Argument(metavar="[KIND]", help="data, models, constraints or objectives; without one: all."),
]


def catalogue(kind: Kind = None, as_json: AsJson = False) -> int:
    """Show the data sets, models, constraints and objectives that geco train knows, a line each."""
    known = _known()
    if kind is not None and kind not in known:
        raise CommandFailure(f"unknown kind {kind!r}{did_you_mean(kind, known)}; known are {', '.join(known)}")
    chosen = known if kind is None else {kind: known[kind]}
    if as_json:
        print_json(chosen)
        return 0
    width = max(len(name) for lines in chosen.values() for name in lines)
    shown = [
        "\n".join([f"{title} (--{option})", *(f"  {name:<{width}}  {about}" for name, about in lines.items())])
        for (title, lines), option in ((each, OPTIONS[each[0]]) for each in chosen.items())
    ]
    print("\n\n".join(shown))
    return 0


OPTIONS = {"data": "data", "models": "model", "constraints": "constraint", "objectives": "objective"}
OWN = "a class of one's own, with arguments as in Class(alpha=0.9); file.py:Class as well"


def _known() -> dict[str, dict[str, str]]:
    from geco_ext.data.registry import about_data
    from geco_ext.training.constraints import CLASSES, USAGE
    from geco_ext.training.models import MODELS
    from geco_ext.training.objectives import OBJECTIVES

    return {
        "data": about_data(),
        "models": {**{name: entry.about for name, entry in MODELS.items()}, "module:Class": OWN},
        "constraints": {
            **{USAGE.get(name, f"{name}(...)"): _first_line(cls) for name, cls in CLASSES.items()},
            "module:Class": OWN,
        },
        "objectives": {**OBJECTIVES, "module:Class": OWN},
    }


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().partition("\n")[0]

"""`geco experiment`: the studies behind the defaults and tables of the documentation."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from geco_ext.cli.failure import INTERRUPTED_EXIT_CODE, CommandFailure, CommandInterrupted
from geco_ext.nearest import did_you_mean

EXPERIMENTS = {
    "multiplier": "multiplier_study",
    "constraints": "constraint_study",
    "matrix": "matrix",
    "elbo": "elbo_study",
}


def experiment(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help=f"{', '.join(EXPERIMENTS)}; --help behind it shows its own options.")],
) -> int:
    """Run one of the studies of geco_ext.experiments; an interrupted one goes on with the same command."""
    if name in ("-h", "--help"):
        print(context.get_help())
        return 0
    if name not in EXPERIMENTS:
        meant = did_you_mean(name, EXPERIMENTS)
        raise CommandFailure(f"unknown experiment {name!r}{meant}; known are {', '.join(EXPERIMENTS)}")
    code: int = import_module(f"geco_ext.experiments.{EXPERIMENTS[name]}").main(context.args)
    if code == INTERRUPTED_EXIT_CODE:
        raise CommandInterrupted(None)
    return code

"""The sub-commands of `geco`, put together."""

from __future__ import annotations

from typing import Annotated

import typer

import geco_ext
from geco_ext.cli.catalogue import catalogue
from geco_ext.cli.data import data
from geco_ext.cli.experiment import experiment
from geco_ext.cli.info import info
from geco_ext.cli.latents import encode, interpolate
from geco_ext.cli.pictures import reconstruct, sample
from geco_ext.cli.train import train
from geco_ext.cli.train_classifier import train_classifier


def build_app() -> typer.Typer:
    """The command line of `geco`."""
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(geco)
    app.command()(train)
    app.command()(train_classifier)
    app.command()(sample)
    app.command()(reconstruct)
    app.command()(encode)
    app.command()(interpolate)
    app.command()(data)
    # The options behind an experiment's name are its own, --help too.
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(context_settings=settings)(experiment)
    app.command("list")(catalogue)
    app.command()(info)
    return app


def _show_version(asked: bool) -> None:
    if asked:
        print(f"geco {geco_ext.__version__}")
        raise typer.Exit


def geco(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train variational auto-encoders under constraints (GECO)."""

"""The `geco` command."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from geco_ext import extras
from geco_ext.cli.failure import FAILURE_EXIT_CODE, INTERRUPTED_EXIT_CODE, CommandFailure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `geco` with ``arguments`` (those of the process by default) and return the exit code.

    What a user can put right ends as one line on stderr and exit code 2; an error of geco's own keeps its traceback.

    Example:
        >>> main(["--version"])  # doctest: +SKIP
        geco 0.1.0
        0
    """
    try:
        import typer
    except ModuleNotFoundError as error:
        return _missing(error)
    from geco_ext.cli.app import build_app

    # Typer shows BadParameter and keeps its base, the error behind every wrong option, to itself.
    usage_error: type[Exception] = typer.BadParameter.__bases__[0]
    try:
        with _warnings_of_one_line():
            return int(build_app()(arguments, standalone_mode=False) or 0)
    except usage_error as error:
        message: str = error.format_message()  # type: ignore[attr-defined]  # the class is known at run time only
        return _fail(message) if message else FAILURE_EXIT_CODE  # no message: `geco` alone, which has shown its help
    except (CommandFailure, OSError) as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        if not extras.is_missing(error):
            raise
        return _missing(error)
    except (KeyboardInterrupt, typer.Abort):
        print("geco: interrupted", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE


def _missing(error: ModuleNotFoundError) -> int:
    return _fail(extras.missing(error.name, "the commands"))


@contextmanager
def _warnings_of_one_line() -> Iterator[None]:
    """Warnings of the package's own kinds are one line on stderr, once where several processes run a command."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **file: Any) -> None:
            if not category.__module__.startswith("geco_ext."):
                others(message, category, *where, **file)
            elif os.environ.get("LOCAL_RANK", "0") == "0":
                print("geco: warning:", " ".join(str(message).split()), file=sys.stderr)

        warnings.showwarning = show
        yield


def _fail(message: str) -> int:
    print("geco: error:", " ".join(message.split()), file=sys.stderr)
    return FAILURE_EXIT_CODE

"""The `geco` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from geco_ext.cli.failure import FAILURE_EXIT_CODE, INTERRUPTED_EXIT_CODE, CommandFailure

TRAIN_PACKAGES = {"lightning", "sklearn", "matplotlib", "tensorboard", "PIL", "tqdm", "typer"}


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
        return int(build_app()(arguments, standalone_mode=False) or 0)
    except usage_error as error:
        message: str = error.format_message()  # type: ignore[attr-defined]  # the class is known at run time only
        return _fail(message) if message else FAILURE_EXIT_CODE  # no message: `geco` alone, which has shown its help
    except (CommandFailure, OSError) as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in TRAIN_PACKAGES:
            raise
        return _missing(error)
    except (KeyboardInterrupt, typer.Abort):
        print("geco: interrupted", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE


def _missing(error: ModuleNotFoundError) -> int:
    return _fail(f'{error.name} is not installed; the commands need: pip install "geco-ext[train]"')


def _fail(message: str) -> int:
    print("geco: error:", " ".join(message.split()), file=sys.stderr)
    return FAILURE_EXIT_CODE

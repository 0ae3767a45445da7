"""The `geco` command."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from geco_ext import extras
from geco_ext.cli.failure import (
    FAILURE_EXIT_CODE,
    INTERRUPTED_EXIT_CODE,
    TRACEBACK,
    CommandFailure,
    CommandInterrupted,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `geco` with ``arguments`` (those of the process by default) and return the exit code.

    Whatever goes wrong ends as one line on stderr and exit code 2, Ctrl-C as one line and exit code 130. An error of
    geco's own is raised, with its traceback, where the environment variable ``GECO_EXT_TRACEBACK`` is 1.

    Example:
        >>> main(["--version"])  # doctest: +SKIP
        geco 0.1.0
        0
    """
    with _noting_interrupts() as interrupts:
        try:
            return _run(arguments)
        except CommandFailure as error:
            return _fail(str(error))
        except CommandInterrupted as ended:
            return _interrupted(ended.args[0])
        except KeyboardInterrupt:
            return _interrupted()
        except Exception as error:
            if interrupts:  # a library has caught it in the middle of its import, and stumbled over what was left
                return _interrupted()
            if isinstance(error, ModuleNotFoundError) and extras.is_missing(error):
                return _missing(error)
            is_known = isinstance(error, OSError) or _is_unavailable_backend(error)
            return _fail(str(error)) if is_known else _own_error(error)


@contextmanager
def _noting_interrupts() -> Iterator[list[int]]:
    """The list gets an entry for each Ctrl-C, which raises KeyboardInterrupt as usual."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_usual or threading.current_thread() is not threading.main_thread():
        yield noted
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _run(arguments: Sequence[str] | None) -> int:
    import typer

    from geco_ext.cli.app import build_app

    # Typer shows BadParameter and keeps its base, the error behind every wrong option, to itself.
    usage_error: type[Exception] = typer.BadParameter.__bases__[0]
    try:
        with _warnings_of_one_line():
            code = int(build_app()(arguments, standalone_mode=False) or 0)
    except usage_error as error:
        message: str = error.format_message()  # type: ignore[attr-defined]  # the class is known at run time only
        return _fail(message) if message else FAILURE_EXIT_CODE  # no message: `geco` alone, which has shown its help
    except typer.Abort:
        return _interrupted()
    # Typer takes Ctrl-C before anybody else can, and says nothing.
    return _interrupted() if code == INTERRUPTED_EXIT_CODE else code


def _missing(error: ModuleNotFoundError) -> int:
    return _fail(extras.missing(error.name, "the commands"))


def _is_unavailable_backend(error: Exception) -> bool:
    """Whether the environment names a backend that cannot run here; the class is there where one was asked for."""
    dispatch = sys.modules.get("geco_ext.ops.dispatch")
    return dispatch is not None and isinstance(error, dispatch.BackendUnavailable)


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


def _own_error(error: Exception) -> int:
    if os.environ.get(TRACEBACK) == "1":
        raise error
    return _fail(f"{type(error).__name__}: {error} (unexpected; {TRACEBACK}=1 shows where)")


def _interrupted(then: str | None = "") -> int:
    if then is not None:
        print(f"geco: interrupted{then and '; '}{then}", file=sys.stderr)
    return INTERRUPTED_EXIT_CODE

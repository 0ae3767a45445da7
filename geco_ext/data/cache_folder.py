from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENVIRONMENT_VARIABLE = "GECO_EXT_DATA"


def cache_folder(name: str) -> Path:
    """Where downloads and prepared arrays of a data set are kept.

    ``$GECO_EXT_DATA/NAME``, without that variable the user's cache folder (``~/.cache/geco_ext/NAME`` on Linux).
    """
    import pooch

    return Path(os.environ.get(ENVIRONMENT_VARIABLE) or pooch.os_cache("geco_ext")).expanduser() / name


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Be the one process that writes ``path``, whose folder is made; others wait here until this one is done.

    The operating system gives the lock back when a process ends, however it ends.

    Raises:
        OSError: the folder cannot be written; the message says how to use another.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = (path.parent / f".{path.name}.lock").open("w")
    except OSError as error:
        raise OSError(
            f"{path.parent} cannot be written ({error.strerror}), and {path.name} is not there, or damaged; "
            f"set {ENVIRONMENT_VARIABLE} to a folder that can be written, or give the folder of files at hand as root"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

"""The files of published data sets: found in a folder at hand, or downloaded.

Downloads are checked, resumed where they were cut, and never leave half a file under its name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geco_ext.data.cache import writing

if TYPE_CHECKING:
    from requests import Response


def checked_root(name: str, root: Path) -> Path:
    """The folder that a user gave for a data set.

    Raises:
        FileNotFoundError: it is not there.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"data {name!r}: root {root} is not a folder")
    return root


def first_present(
    name: str, root: Path, candidates: Iterable[str], is_there: Callable[[Path], bool] = Path.is_file
) -> Path:
    """The first of some files under ``root`` that is there; ``is_there`` tells what counts.

    Raises:
        FileNotFoundError: none is.
    """
    candidates = list(candidates)
    for candidate in candidates:
        if is_there(root / candidate):
            return root / candidate
    raise FileNotFoundError(
        f"data {name!r}: found none of {', '.join(candidates)} in {root}; put one of them there, or leave out root "
        "to download it"
    )


ATTEMPTS = 3  # with each mirror: a cut connection goes on where it stopped
TIMEOUT = 30  # seconds without a byte
CHUNK = 2**14  # bytes; what came of a chunk before a cut is lost
OK, RANGE_NOT_SATISFIABLE = 200, 416


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be downloaded.

    Attributes:
        name: under which it is kept.
        checksum: ``sha256:...`` or ``md5:...``, as published.
        urls: where it is, tried in this order.
    """

    name: str
    checksum: str
    urls: tuple[str, ...]


class DownloadError(OSError):
    """A file could not be downloaded from any of its mirrors."""


def fetch(remote: RemoteFile, folder: Path) -> Path:
    """The file in ``folder``, downloaded unless a whole one is there.

    What is there must have the right checksum, otherwise it is replaced. Processes that need the same file at the
    same time wait for the first of them. A whole file is used where the folder is read-only, too.

    Raises:
        DownloadError: no mirror gave the file; the message has the reason of each.
        OSError: the folder cannot be written, or is full.
    """
    path = folder / remote.name
    if not _is_whole(path, remote):
        with writing(path):
            if not _is_whole(path, remote):
                _download(remote, path)
    return path


def _is_whole(path: Path, remote: RemoteFile) -> bool:
    from pooch import file_hash

    algorithm, _, digest = remote.checksum.partition(":")
    return path.is_file() and file_hash(str(path), alg=algorithm) == digest


def _download(remote: RemoteFile, path: Path) -> None:
    import pooch
    from requests import HTTPError, RequestException

    pooch.get_logger().setLevel("WARNING")
    problems = []
    resuming = _ResumingDownloader(path)
    for url in remote.urls:
        for _ in range(ATTEMPTS):
            try:
                # pooch gives a temporary name, compares the checksum, and only then renames.
                pooch.retrieve(url, remote.checksum, fname=path.name, path=path.parent, downloader=resuming)
                return
            except ValueError:
                problem, again = "wrong checksum", resuming.resumed
            except _UnexpectedAnswer as error:
                problem, again = str(error), False
            except HTTPError as error:
                problem = str(error)
                again = error.response is not None and error.response.status_code == RANGE_NOT_SATISFIABLE
                resuming.from_the_start = again
            except RequestException as error:
                problem, again = _reason(error), True
            except OSError as error:
                raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
            if not again:
                break
        problems.append(f"{url}: {problem}")
    again_from = " (it goes on where it stopped)" if resuming.has_a_part() else ""
    raise DownloadError(
        f"{remote.name} could not be downloaded: {'; '.join(problems)}. Try again{again_from}, "
        "or give the folder of a copy at hand as root"
    )


class _UnexpectedAnswer(Exception):  # noqa: N818 - what came, as the message says
    """A server answered with something that cannot be the file."""


class _ResumingDownloader:
    """A downloader for pooch that keeps what came before a cut, beside the file, and asks for the rest.

    Attributes:
        from_the_start: whether the next download asks for all of the file.
        resumed: whether the last one went on with a part.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.partial = path.with_name(f".{path.name}.partial")
        self.from_the_start = False
        self.resumed = False

    def has_a_part(self) -> bool:
        """Whether something came already."""
        return self.partial.is_file() and self.partial.stat().st_size > 0

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        from pooch import HTTPDownloader
        from requests import ConnectionError
        from tqdm import tqdm  # type: ignore[import-untyped]

        with self.partial.open("ab") as file:
            start = 0 if self.from_the_start else file.tell()
            self.from_the_start = False
            whole = 0

            def begin(response: Response, *_: Any, **__: Any) -> None:
                nonlocal start, whole
                length = int(response.headers.get("Content-Length", 0))
                if response.status_code == OK:  # all of it, whatever was asked for
                    # A part may be a gigabyte: the page that says "too many downloads" must not replace it.
                    if "text/html" in response.headers.get("Content-Type", ""):
                        raise _UnexpectedAnswer("a web page, not the file")
                    if 0 < length < start:
                        raise _UnexpectedAnswer(f"{length} bytes, less than came before")
                    start = 0
                    file.truncate(0)
                whole = start + length

            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
            # A total that is not 0, because pooch asks whether the bar is true; it sets the right one.
            with tqdm(total=1, desc=self.name, unit="B", unit_scale=True, disable=None) as bar:
                download = HTTPDownloader(
                    progressbar=bar, chunk_size=CHUNK, timeout=TIMEOUT, headers=headers, hooks={"response": begin}
                )
                download(url, file, pooch)
            self.resumed = start > 0
            if file.tell() < whole:  # with urllib3 1, requests takes the end of a connection for that of the file
                raise ConnectionError(f"cut after {file.tell()} of {whole} bytes")
        os.replace(self.partial, output_file)


def _reason(error: Exception) -> str:
    """The innermost cause, which unlike what wraps it can be read."""
    while isinstance(error.__cause__ or error.__context__, Exception):
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(error) or type(error).__name__

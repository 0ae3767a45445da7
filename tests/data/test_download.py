import functools
import hashlib
import signal
import subprocess
import sys
import time

import pytest
import urllib3

from geco_ext.data import download
from geco_ext.data.download import DownloadError, RemoteFile, fetch

CONTENT = bytes(range(256)) * 2000  # 512000 bytes


def remote(server, *paths, content=CONTENT):
    return RemoteFile(
        "file.bin", f"sha256:{hashlib.sha256(content).hexdigest()}", tuple(server.url + path for path in paths)
    )


def left_behind(folder):
    """What a reader may find: neither locks nor parts."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


HALF = 16 * download.CHUNK


@pytest.fixture
def server(loopback):
    loopback.files["file.bin"] = CONTENT
    return loopback


def test_a_file_comes_whole_and_once(server, cache):
    for _ in range(2):
        assert fetch(remote(server, "file.bin"), cache).read_bytes() == CONTENT
    assert server.ranges() == [None]
    assert left_behind(cache) == ["file.bin"]


@pytest.mark.parametrize("checks_length", [True, False])  # as urllib3 2 and 1 do
def test_a_cut_download_is_resumed_where_it_stopped(server, cache, monkeypatch, checks_length):
    pool = urllib3.HTTPConnectionPool
    unchecked = functools.partialmethod(pool.urlopen, enforce_content_length=checks_length)
    monkeypatch.setattr(pool, "urlopen", unchecked)
    server.faults["file.bin"] = [("cut", HALF)]
    assert fetch(remote(server, "file.bin"), cache).read_bytes() == CONTENT
    assert server.ranges() == [None, f"bytes={HALF}-"]


def test_a_download_given_up_is_resumed_by_the_next(server, cache):
    server.faults["file.bin"] = [("cut", 2 * download.CHUNK)] * download.ATTEMPTS
    with pytest.raises(DownloadError, match=r"file\.bin could not be downloaded.*goes on where it stopped.*root"):
        fetch(remote(server, "file.bin"), cache)
    assert left_behind(cache) == []
    assert fetch(remote(server, "file.bin"), cache).read_bytes() == CONTENT
    assert server.ranges() == [None, *(f"bytes={part * download.CHUNK}-" for part in (2, 4, 6))]


def test_a_server_without_ranges_begins_anew(server, cache):
    server.knows_ranges = False
    server.faults["file.bin"] = [("cut", HALF)]
    assert fetch(remote(server, "file.bin"), cache).read_bytes() == CONTENT
    assert server.ranges() == [None, f"bytes={HALF}-"]


def test_a_resumed_download_that_does_not_fit_begins_anew(server, cache):
    server.faults["file.bin"] = [("cut", HALF), ("corrupt",)]
    assert fetch(remote(server, "file.bin"), cache).read_bytes() == CONTENT
    assert server.ranges() == [None, f"bytes={HALF}-", None]


def test_a_part_as_long_as_the_file_begins_anew(server, cache):
    cache.mkdir()
    (cache / ".file.bin.partial").write_bytes(bytes(len(CONTENT)))
    assert fetch(remote(server, "file.bin"), cache).read_bytes() == CONTENT
    assert server.ranges() == [f"bytes={len(CONTENT)}-", None]


@pytest.mark.parametrize("answers", [[("page",)], [("short",)], [416, ("page",)], [416, 404]])
def test_another_answer_than_the_rest_leaves_the_part(server, cache, answers):
    server.files["mirror"] = CONTENT
    server.faults["file.bin"] = [("cut", HALF)] + [("cut", 0)] * (download.ATTEMPTS - 1)
    server.faults["mirror"] = answers
    with pytest.raises(DownloadError, match="goes on where it stopped"):
        fetch(remote(server, "file.bin", "mirror"), cache)
    assert (cache / ".file.bin.partial").read_bytes() == CONTENT[:HALF]
    server.requests.clear()
    assert fetch(remote(server, "file.bin", "mirror"), cache).read_bytes() == CONTENT
    assert server.ranges() == [f"bytes={HALF}-"]


def test_a_web_page_is_called_one_and_not_kept(server, cache):
    server.faults["file.bin"] = [("page",)]
    with pytest.raises(DownloadError, match=r"a web page, not the file\. Try again, or give"):
        fetch(remote(server, "file.bin"), cache)
    assert left_behind(cache) == []


def test_a_wrong_checksum_leaves_nothing_under_the_name(server, cache):
    server.files["file.bin"] = b"something else"
    with pytest.raises(DownloadError, match=r"file\.bin could not be downloaded: .*wrong checksum\. Try again, or"):
        fetch(remote(server, "file.bin"), cache)
    assert left_behind(cache) == []


def test_a_truncated_file_leaves_nothing_under_the_name(server, cache):
    server.files["file.bin"] = CONTENT[:-1]
    with pytest.raises(DownloadError, match="wrong checksum"):
        fetch(remote(server, "file.bin"), cache)
    assert left_behind(cache) == []


def test_a_damaged_file_in_the_cache_is_replaced(server, cache):
    cache.mkdir()
    (cache / "file.bin").write_bytes(CONTENT[:-1])
    assert fetch(remote(server, "file.bin"), cache).read_bytes() == CONTENT


def test_the_next_mirror_is_tried_and_goes_on_with_the_part(server, cache):
    server.files["mirror"] = CONTENT
    server.faults["file.bin"] = [("cut", HALF), 503]
    assert fetch(remote(server, "gone", "file.bin", "mirror"), cache).read_bytes() == CONTENT
    assert server.requests == [
        ("gone", None),
        ("file.bin", None),
        ("file.bin", f"bytes={HALF}-"),
        ("mirror", f"bytes={HALF}-"),
    ]


def test_without_a_network_each_mirror_is_named_with_its_reason(server, cache):
    nobody = "http://127.0.0.1:9/file.bin"  # the discard port, where nothing listens
    wanted = RemoteFile("file.bin", "sha256:00", (nobody, server.url + "gone"))
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9/file\.bin: .*refused.*gone: 404"):
        fetch(wanted, cache)


def test_a_whole_file_in_a_read_only_folder_is_used(server, read_only):
    (read_only.folder / "file.bin").write_bytes(CONTENT)
    assert fetch(remote(server, "gone"), read_only()).read_bytes() == CONTENT
    assert [path.name for path in read_only.folder.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("damaged", [False, True])
def test_a_read_only_folder_without_the_whole_file_is_named(server, read_only, damaged):
    if damaged:
        (read_only.folder / "file.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(OSError, match=r"geco_ext_test_.* cannot be written \(Permission denied\).*GECO_EXT_DATA.*root"):
        fetch(remote(server, "file.bin"), read_only())


@pytest.mark.parametrize("folder", ["/proc/geco_ext", "in_a_file/cache"])
def test_a_folder_that_cannot_be_written_is_named(server, tmp_path, folder):
    (tmp_path / "in_a_file").touch()
    with pytest.raises(OSError, match=rf"{folder} cannot be written .*GECO_EXT_DATA.*root"):
        fetch(remote(server, "file.bin"), tmp_path / folder)


FETCH = """
import sys
from pathlib import Path
from geco_ext.data.download import RemoteFile, fetch
print(fetch(RemoteFile("file.bin", sys.argv[1], (sys.argv[2],)), Path(sys.argv[3])).stat().st_size)
"""


def fetching(server, cache):
    checksum = remote(server, "file.bin").checksum
    command = [sys.executable, "-c", FETCH, checksum, server.url + "file.bin", str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_at_once_download_once(server, cache):
    server.seconds_a_block = 0.01
    processes = [fetching(server, cache) for _ in range(2)]
    assert [process.communicate(timeout=300)[0].strip() for process in processes] == [str(len(CONTENT))] * 2
    assert server.ranges() == [None]
    assert left_behind(cache) == ["file.bin"]


def test_a_killed_process_leaves_a_part_that_the_next_goes_on_with(server, cache):
    server.seconds_a_block = 0.05
    process = fetching(server, cache)
    part = cache / ".file.bin.partial"
    waited = time.monotonic()
    while not (part.is_file() and part.stat().st_size) and time.monotonic() < waited + 60:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=300)
    assert not (cache / "file.bin").exists()
    done = part.stat().st_size
    assert 0 < done < len(CONTENT)
    server.seconds_a_block = 0.0
    assert fetch(remote(server, "file.bin"), cache).read_bytes() == CONTENT
    assert server.ranges() == [None, f"bytes={done}-"]


def test_progress_is_shown_to_who_looks(server, cache, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fetch(remote(server, "file.bin"), cache)
    assert "file.bin: 100%" in capsys.readouterr().err

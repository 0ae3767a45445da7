import pytest
from loopback import serving


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own; not there yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GECO_EXT_DATA", str(folder))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def loopback(cache):
    with serving() as server:
        yield server

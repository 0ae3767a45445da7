"""A pytest plugin: a line in ``GECO_EXT_TEST_ROWS`` for each test, when it ends: what was found survives a crash."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

LEFT_OUT = "left out: "  # how the reason of a test begins that there was no time for
GROUP = os.environ.get("GECO_EXT_TEST_GROUP", "")
_counted = False


def pytest_collection_finish(session: pytest.Session) -> None:
    """Without workers: how many tests there are."""
    if session.items:
        _count(len(session.items))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: object, ids: list[str]) -> None:
    """Every worker collects all."""
    _count(len(ids))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Of a test's three phases, the one that decides."""
    if not (report.when == "call" or report.skipped or report.failed):
        return
    outcome, reason = str(report.outcome), ""
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        outcome = "left out" if reason.startswith(LEFT_OUT) else outcome
    elif report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = crash.message if crash else str(report.longrepr)
    _write(outcome, f"{report.duration:.2f}", report.nodeid, " ".join(reason.split())[:400])


def _count(tests: int) -> None:
    global _counted
    if not _counted and _is_first():
        _counted = True
        _write("collected", "", str(tests), "")


def _is_first() -> bool:
    """Not one of the workers, whose reports come here anyway."""
    return "PYTEST_XDIST_WORKER" not in os.environ


def _write(outcome: str, seconds: str, test: str, reason: str) -> None:
    if not _is_first():
        return
    with Path(os.environ["GECO_EXT_TEST_ROWS"]).open("a") as file:  # one short write: lines of groups do not mix
        file.write("\t".join([GROUP, outcome, seconds, test, reason]) + "\n")

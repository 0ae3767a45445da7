"""The stage of tests: groups, each of processes of its own, the most telling first.

An illegal address makes the GPU useless to the process that met it. Tests run in workers of pytest-xdist, which end
themselves then (``conftest.py``) and are replaced: what is lost is one test.
"""

from __future__ import annotations

import os
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

from harness.session import ROOT, Process, Session

TESTS = ROOT / "tests"
ON_A_GPU = TESTS / "hardware" / "gpu"
KERNELS = [
    *(TESTS / "backends" / f"test_{name}.py" for name in ("backends", "allocation", "triton_backend")),
    *(TESTS / "ops" / f"test_{name}.py" for name in ("autograd", "model_kernels", "image_step")),
    *sorted(TESTS.glob("*/test_windows*.py")),
]
FIRST_CONTACT, SANITIZERS = ON_A_GPU / "test_first_contact.py", ON_A_GPU / "test_memory_errors.py"
STEPS = [path for path in sorted(ON_A_GPU.glob("test_*.py")) if path not in (FIRST_CONTACT, SANITIZERS)]
NO_TESTS = 5  # pytest's exit status where nothing was left to run
LONGEST = 100.0  # seconds of a test, sanitizers apart; then its worker is replaced
SANITIZER = 185.0


class Group(NamedTuple):
    """Tests that one pytest runs."""

    name: str
    files: list[Path]
    choice: str  # as -k takes it
    processes: int  # of sixteen processors
    marks: str = "gpu and not large_memory"
    longest: float = LONGEST


FIRST = Group("first", [FIRST_CONTACT], "not triton", 6)
# Most of their time is that of compilers and sanitizers on the host: a test of Triton took 5 s there, one of the
# compiled kernels, of which there are twice as many, 0.2 s.
BESIDE = [
    Group("sanitizers", [SANITIZERS], "", 4, longest=SANITIZER),
    Group("steps", STEPS, "", 3),
    Group("compiled", KERNELS, "not triton", 2),
    Group("triton", [FIRST_CONTACT, *KERNELS], "triton", 8),
]
LARGE = Group("large", [ON_A_GPU], "", 1, "gpu and large_memory")
SECONDS_OF_LARGE = 70.0
GRACE = 25.0  # at most, for the test that has begun when time is up


def run(session: Session) -> bool:
    """Whether no test failed, and every group had time for some of its tests."""
    rows = session.folder / "test.tsv"
    rows.write_text("group\toutcome\tseconds\ttest\treason\n")
    for path in session.folder.glob("test-*.xml"):
        path.unlink()
    usable = session.left() - 10
    finished = [_end(session, _start(session, FIRST, min(100.0, 0.4 * usable)))]
    large = min(SECONDS_OF_LARGE, 0.2 * usable)
    seconds = session.left() - 10 - large
    finished += [_end(session, process) for process in [_start(session, group, seconds) for group in BESIDE]]
    finished.append(_end(session, _start(session, LARGE, min(large, session.left() - 5))))
    _merge(session)
    counts = _summary(session, rows.read_text().splitlines()[1:])
    if not counts:
        session.leave_out("all tests", f"none is chosen by ONLY={session.only!r}")
    untried = [group for group, outcomes in counts.items() if _is_untried(outcomes)]
    if untried:
        session.say(f"FAILED: there was no time for any test of {', '.join(untried)}")
    return all(finished) and bool(counts) and not untried


def _is_untried(outcomes: dict[str, int]) -> bool:
    return "left out" in outcomes and not outcomes.keys() & {"passed", "failed"}


def _start(session: Session, group: Group, seconds: float) -> Process:
    """All of a group that begins within its seconds, less what a last test needs."""
    choice = " and ".join(f"({part})" for part in (group.choice, session.only) if part)
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:benchmark", "-p", "harness.rows"]
    arguments += ["-m", group.marks]
    arguments += [f"--junitxml={session.folder / f'test-{group.name}.xml'}", "-n", str(_processes(group))]
    arguments += ["--max-worker-restart", "40", "--maxschedchunk", "1", *(["-k", choice] if choice else [])]
    environment = {
        "GECO_EXT_TEST_UNTIL": str(time.time() + seconds - min(GRACE, 0.3 * seconds)),
        "GECO_EXT_TEST_LONGEST": str(min(group.longest, seconds)),
        "GECO_EXT_TEST_ROWS": str(session.folder / "test.tsv"),
        "GECO_EXT_TEST_GROUP": group.name,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ON_A_GPU), os.environ.get("PYTHONPATH", "")])),
    }
    return session.python(group.name, [*arguments, *map(str, group.files)], seconds, environment)


def _processes(group: Group) -> int:
    return max(1, round(group.processes * min(os.cpu_count() or 1, 16) / 16))


def _end(session: Session, process: Process) -> bool:
    status = process.wait()
    summary = next((line for line in reversed(process.lines) if line.strip()), "nothing was printed")
    session.say(f"{process.name}: {summary.strip('= ')}")
    if process.was_stopped:
        session.leave_out(f"what was left of group {process.name}", "its time was up, it was stopped")
        return False
    return status in (0, NO_TESTS)


def _merge(session: Session) -> None:
    """One file of JUnit's from those of the groups."""
    together = ElementTree.Element("testsuites")
    for path in sorted(session.folder.glob("test-*.xml")):
        together.extend(ElementTree.parse(path).getroot())
        path.unlink()
    ElementTree.ElementTree(together).write(session.folder / "test.xml", encoding="utf-8", xml_declaration=True)


def _summary(session: Session, lines: list[str]) -> dict[str, dict[str, int]]:
    """Failures, and how many tests of each group came out how; what was left out is said."""
    counts: dict[str, dict[str, int]] = {}
    collected: dict[str, int] = {}
    for line in lines:
        group, outcome, seconds, test, reason = line.split("\t")
        if outcome == "collected":
            collected[group] = int(test)
            continue
        of_group = counts.setdefault(group, {})
        of_group[outcome] = of_group.get(outcome, 0) + 1
        if outcome == "failed":
            session.say(f"FAILED {test}: {reason} ({seconds} s)")
        elif group == SANITIZERS_GROUP and outcome == "skipped":
            session.leave_out(test, reason)
    for group, of_group in counts.items():
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(of_group.items()))
        session.say(f"{group}: {told}, of {collected.get(group, 0)}")
        missing = collected.get(group, 0) - sum(of_group.values()) + of_group.get("left out", 0)
        if missing > 0:
            session.leave_out(f"{missing} of {collected[group]} tests of group {group}", "the time was up")
    return counts


SANITIZERS_GROUP = BESIDE[0].name

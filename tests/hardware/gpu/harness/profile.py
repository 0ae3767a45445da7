"""The stage of profiles: each hot kernel's counters by Nsight Compute as text; without it, its times."""

from __future__ import annotations

import gzip
import re
import shutil
import sys
import tempfile
from pathlib import Path

from harness.session import ROOT, Session

HOT_STEPS = ROOT / "bench" / "hot_steps.py"
STEPS = ("re", "windows", "per_channel", "small")  # of hot_steps.py, in this order
WITH_SOURCE = "windows"  # whose counters are kept for each instruction too
SHOWN = "Duration|Executed Ipc Active|No Eligible|Registers Per|Achieved Occ|(DRAM|Memory) Throughput|geco::"


def run(session: Session) -> bool:
    """Whether every step ran. Counters that cannot be had are no failure: the times stand in for them."""
    text = session.folder / "profile.txt"
    text.write_text("")
    chosen = [step for step in STEPS if re.search(session.only, step)]
    passed = [_times(session, text, step) for step in chosen]
    refusal = _refusal()
    for step in chosen:
        if session.left() < 30:
            session.leave_out(f"counters of {step}", "the time was up")
        elif refusal:
            session.leave_out(f"counters of {step}", refusal)
        else:
            refusal = _counters(session, text, step)
    return bool(passed) and all(passed)


def _times(session: Session, text: Path, step: str) -> bool:
    """Of a step, and of each of its kernels: by events and PyTorch's profiler, which no driver refuses."""
    process = session.python(step, [HOT_STEPS, step], min(90.0, session.left() - 5))
    passed = process.wait() == 0
    _append(text, f"{step}: times", process.lines)
    session.say(f"{step}: {process.lines[0] if passed else 'FAILED, ' + process.tail(1)}")
    return passed


def _refusal() -> str | None:
    return None if _ncu() else "ncu is not installed: the times by PyTorch's profiler are in profile.txt"


def _ncu() -> str | None:
    apart = [str(path) for path in sorted(Path("/opt/nvidia/nsight-compute").glob("*/ncu"))]
    return shutil.which("ncu") or (apart[-1] if apart else None)


def _counters(session: Session, text: Path, step: str) -> str | None:
    """Of all our kernels in one step. Returns why there will be none for the others either, or None."""
    ncu = str(_ncu())
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / f"{step}.ncu-rep"
        options = ["--clock-control", "none", "--set", "full", "--import-source", "yes", "--profile-from-start", "off"]
        options += ["--kernel-name-base", "demangled", "--kernel-name", "regex:geco"]
        options += ["--export", str(report.with_suffix("")), "--force-overwrite"]
        command = [ncu, *options, sys.executable, str(HOT_STEPS), step, "--profiled"]
        process = session.start(f"ncu {step}", command, min(110.0, session.left() - 5))
        status = process.wait()
        if "ERR_NVGPUCTRPERM" in "".join(process.lines):
            return _left_out(session, step, "the driver gives counters to administrators alone (ERR_NVGPUCTRPERM)")
        if status or not report.exists():
            errors = [line for line in process.lines if line.startswith("==ERROR==")]
            _left_out(session, step, (errors or [process.tail(1)])[0] or f"ncu ended with status {status}")
            return None
        details = _shown(session, [ncu, "--import", str(report), "--page", "details"])
        _append(text, f"{step}: counters", details)
        for line in details:
            if re.search(SHOWN, line):
                session.say(f"{step}: {' '.join(line.split())}")
        if step == WITH_SOURCE:
            with gzip.open(session.folder / f"{step}.source.csv.gz", "wt") as file:
                source = _shown(session, [ncu, "--import", str(report), "--page", "source", "--csv"])
                file.write("\n".join(source) + "\n")
    return None


def _shown(session: Session, command: list[str]) -> list[str]:
    """What ncu says of a report."""
    process = session.start("ncu", command, 60)
    process.wait()
    return process.lines


def _left_out(session: Session, step: str, why: str) -> str:
    session.leave_out(f"counters of {step}", why)
    return why


def _append(text: Path, title: str, lines: list[str]) -> None:
    with text.open("a") as file:
        file.write("\n".join([f"=== {title}", *lines, ""]) + "\n")

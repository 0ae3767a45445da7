"""The stage of measurements: ``bench/ratios.py`` in processes that follow one another, alone on the GPU.

A scenario that crashes costs its own row; the next process goes on behind it. What bars stand on is measured first
(``bench/scenarios.py``).
"""

from __future__ import annotations

import re
from pathlib import Path

from harness.session import ROOT, Session

RATIOS, REPORT, MODEL_KERNELS = (ROOT / "bench" / f"{name}.py" for name in ("ratios", "report", "model_kernels"))
DONE = (0, 1)  # exit status of ratios.py where every scenario has its row, or its failure
LONGEST_REPORT = 40.0
LEAST = 20.0  # seconds in which a process can measure something
SPARE = 0.1  # of the time left: for the scenario that has begun when no other may, and half of it for the report


def run(session: Session) -> bool:
    """Whether all was measured, or left out for want of time."""
    rows = session.folder / "bench.jsonl"
    rows.unlink(missing_ok=True)
    measured = _measure(session, rows)
    kept = _keep(session, rows)
    _model_kernels(session)
    return measured and kept


def _measure(session: Session, rows: Path) -> bool:
    crashes = 0
    while crashes < 8:
        left = session.left()
        limit = (1 - SPARE) * left
        if limit < LEAST:
            session.leave_out("the scenarios without a row in bench.jsonl", "the time was up")
            return crashes == 0
        arguments = [RATIOS, "--device", "cuda", "--rows", rows, "--limit", f"{limit:.0f}", "--only", session.only]
        process = session.python("ratios", arguments, left - SPARE / 2 * left)
        status = process.wait()
        for line in process.lines:
            label, left_out, why = line.partition(": left out, ")
            if left_out:
                session.leave_out(label, why)
            elif re.search(r" \(GPU\), ms: |: FAILED$", line):
                session.say(line)
        if process.was_stopped:
            session.leave_out("the scenarios without a row in bench.jsonl", "the time was up")
            return crashes == 0
        if status in DONE:
            return status == 0 and crashes == 0
        crashes += 1
        session.say(f"a process of the measurements ended with status {status}: {process.tail(1)}")
    session.leave_out("the scenarios without a row in bench.jsonl", f"{crashes} processes crashed")
    return False


def _keep(session: Session, rows: Path) -> bool:
    """The result of the card, the README's table, and what both show of the bars."""
    arguments = [REPORT, "--rows", rows, "--copy", session.folder, *(["--add"] if session.only else [])]
    process = session.python("report", arguments, min(LONGEST_REPORT, session.left()))
    if process.wait():
        session.say(f"no result was kept: {process.tail(1)}")
        return False
    print("\n".join(process.lines), flush=True)
    (session.folder / "bars.txt").write_text("\n".join(process.lines) + "\n")
    return True


def _model_kernels(session: Session) -> None:
    """For the record, where time is left."""
    if session.only:
        return
    if session.left() < 3 * LEAST:
        session.leave_out("the kernels of models", "the time was up")
        return
    arguments = [MODEL_KERNELS, "--device", "cuda", "--seconds", "1"]
    process = session.python("models", arguments, session.left() - 5)
    process.wait()
    if process.was_stopped:
        session.leave_out("some of the kernels of models", "the time was up")
    session.say(f"the kernels of models are in the log, {len(process.lines)} lines")

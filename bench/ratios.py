"""The comparison that is committed: every scenario's candidates, found to agree, in turns in one process.

python bench/ratios.py                          # everything, on the screen
python bench/ratios.py --only 'pNCC 8, 64x3x64' --threads 1 2
python bench/ratios.py --write                  # on an idle machine: keep it, and write the tables
python bench/ratios.py --device cuda --quick    # on a GPU: what the README shows; all of it: make gpu-bench
"""

from __future__ import annotations

import argparse
import faulthandler
import math
import re
import sys
import time
import traceback
from pathlib import Path

import torch
from agreement import check_agreement
from bars import judge, place
from candidates import comparable_losses, copy, floor, operator, steps
from footprint import launches, peak_bytes
from measured import Measured
from report import report_of
from results import Result, Row, machine
from scenarios import GPU_SCENARIOS, SCENARIOS, Scenario
from timing import measure

LOST = 3  # exit status where the rest needs another process
LONGEST = 150.0  # seconds of a scenario, torch.compile's compiler included


def compare(scenario: Scenario, seconds: float, turn_seconds: float, device: torch.device) -> Row:
    """All candidates of a scenario, on the GPU or on the threads that PyTorch uses now."""
    candidates = steps(scenario, device)
    check_agreement(candidates)
    calls = {**candidates, **comparable_losses(scenario, device), "operator": operator(scenario, device)}
    counted = launches(calls, device), peak_bytes(calls, device)
    calls["floor"] = floor(scenario, device)
    threads = torch.get_num_threads()
    if device.type == "cuda":
        calls["copy"] = copy(scenario, device)
        threads = 0
    return Row.of(scenario, threads, measure(calls, seconds, turn_seconds, device), *counted)


def main() -> None:
    arguments = _arguments()
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    rows: list[Row] = []
    result = Result(machine(device), arguments.turn, rows)
    failed: list[str] = []
    measured = Measured(arguments.rows) if arguments.rows else None
    if measured:
        measured.begin(result)
    end = time.monotonic() + arguments.limit
    for threads in [0] if on_gpu else arguments.threads:
        if threads:
            torch.set_num_threads(threads)
        for scenario in GPU_SCENARIOS if on_gpu else SCENARIOS:
            if not re.search(arguments.only, scenario.label) or (arguments.quick and not scenario.in_readme):
                continue
            if measured and scenario.label in measured.labels():
                continue
            if time.monotonic() > end:
                print(f"{scenario.label}: left out, {arguments.limit:g} s have passed", flush=True)
                continue
            if measured:
                measured.start(scenario.label)
                faulthandler.dump_traceback_later(LONGEST, exit=True, file=sys.__stderr__)  # a kernel that hangs
            try:  # what fails costs its own row: the others are still worth keeping
                rows.append(compare(scenario, arguments.seconds, arguments.turn, device))
                print(_line(rows[-1]), flush=True)
                if measured:
                    measured.add(rows[-1])
                if on_gpu:
                    torch.cuda.empty_cache()
            except Exception as error:
                traceback.print_exc()
                failed.append(scenario.label)
                print(f"{scenario.label}: FAILED", flush=True)
                if measured:
                    measured.fail(scenario.label, repr(error))
                if on_gpu and _is_lost(device):
                    sys.exit(LOST)
            finally:
                faulthandler.cancel_dump_traceback_later()
    if rows and not measured:
        print("\n".join(judge(rows)[0]))
    if arguments.json:
        result.save(arguments.json)
    if arguments.write:
        report_of(result).keep(result)
    if failed:
        sys.exit(f"failed: {'; '.join(failed)}")
    if not rows and not measured:
        sys.exit("nothing was measured")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seconds", type=float, help="measuring time of a scenario; 6, on a GPU 2")
    parser.add_argument("--turn", type=float, default=0.02, help="seconds a candidate runs before the next one does")
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()], help="one pass for each")
    parser.add_argument("--only", default="", metavar="REGEX", help="scenarios whose label matches")
    parser.add_argument("--quick", action="store_true", help="only what the README's table shows")
    parser.add_argument("--limit", type=float, help="start no scenario after so many seconds")
    parser.add_argument(
        "--rows", type=Path, metavar="PATH", help="append each row as it is measured; do not repeat any"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result there")
    parser.add_argument("--write", action="store_true", help="keep the result: bench/results and the README's table")
    arguments = parser.parse_args()
    if arguments.write and arguments.only:
        parser.error("--write keeps a whole run, --only measures part of one; use --json")
    on_gpu = arguments.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU here that PyTorch can use")
    arguments.seconds = arguments.seconds or (2.0 if on_gpu else 6.0)
    arguments.limit = math.inf if arguments.limit is None else arguments.limit
    return arguments


def _is_lost(device: torch.device) -> bool:
    """After an illegal address a process gets no answer from the GPU any more."""
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def _line(row: Row) -> str:
    shown = [f"{name} {seconds * 1e3:.3g}" for name, seconds in row.seconds.items()]
    return f"{row.label} ({place(row.threads)}), ms: {', '.join(shown)}"


if __name__ == "__main__":
    main()

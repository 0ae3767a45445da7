"""The comparison that is committed: every scenario's candidates, found to agree, in turns in one process.

python bench/ratios.py                          # everything, on the screen
python bench/ratios.py --only 'pNCC 8, 64x3x64' --threads 1 2
python bench/ratios.py --write                  # on an idle machine: keep it, and write the tables
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch
from agreement import check_agreement
from bars import judge
from candidates import floor, operator, steps
from report import RESULT, write_tables
from results import Result, Row, machine
from scenarios import SCENARIOS, Scenario
from timing import measure


def compare(scenario: Scenario, seconds: float, turn_seconds: float, device: torch.device) -> Row:
    """All candidates of a scenario, on the threads that PyTorch uses now."""
    candidates = steps(scenario, device)
    check_agreement(candidates)
    calls = {**candidates, "operator": operator(scenario, device), "floor": floor(scenario, device)}
    return Row.of(scenario, torch.get_num_threads(), measure(calls, seconds, turn_seconds, device))


def main() -> None:
    arguments = _arguments()
    rows = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for scenario in SCENARIOS:
            if re.search(arguments.only, scenario.label):
                rows.append(compare(scenario, arguments.seconds, arguments.turn, torch.device("cpu")))
                print(_line(rows[-1]), flush=True)
    result = Result(machine(), arguments.turn, rows)
    print("\n".join(judge(rows)[0]))
    if arguments.json:
        result.save(arguments.json)
    if arguments.write:
        result.save(RESULT)
        write_tables()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="measuring time of a scenario")
    parser.add_argument("--turn", type=float, default=0.02, help="seconds a candidate runs before the next one does")
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()], help="one pass for each")
    parser.add_argument("--only", default="", metavar="REGEX", help="scenarios whose label matches")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result there")
    parser.add_argument("--write", action="store_true", help="keep the result: bench/results and the README's table")
    arguments = parser.parse_args()
    if arguments.write and arguments.only:
        parser.error("--write keeps a whole run, --only measures part of one; use --json")
    return arguments


def _line(row: Row) -> str:
    shown = [f"{name} {seconds * 1e3:.3g}" for name, seconds in row.seconds.items()]
    return f"{row.label} ({row.threads} threads), ms: {', '.join(shown)}"


if __name__ == "__main__":
    main()

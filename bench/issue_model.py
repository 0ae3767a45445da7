"""How long a loop of compiled GPU code takes, without a GPU: its machine code replayed on a model of a multiprocessor.

A compiled kernel carries its own schedule: every instruction says how many cycles to wait behind it, which scoreboards
it sets and which it waits for. One trip through a loop is replayed for several resident warps, with the limits of issue
and the latencies below; what comes out is cycles a trip. The model knows no instruction cache, no bank conflicts and no
memory bandwidth: times are more likely low than high, and ratios of two versions of a loop are what it is for.

A trip takes the longest way through the loop that enters no loop inside, unless it is told how often these run: the way
of all vectors, gradient wanted. `predictions.py` is what uses it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache

# Cycles from issue to the result, of instructions that set a scoreboard; loads from memory say their own.
LATENCY = {"LDS": 30, "SHFL": 24, "MUFU": 22, "F2F": 24, "F2I": 20, "I2F": 20, "LDC": 34, "S2R": 30, "DADD": 16}
LATENCY |= {"DMUL": 16, "DFMA": 16, "BAR": 20, "STS": 12, "STG": 20, "LD": 300, "ATOM": 600, "ULDC": 10, "R2UR": 12}
LATENCY |= {"VOTEU": 10, "I2FP": 8}
# Of these a scheduler issues one in two cycles.
HALF_RATE = {
    "IADD3",
    "LOP3",
    "ISETP",
    "SEL",
    "SHF",
    "LEA",
    "PRMT",
    "FSETP",
    "FSEL",
    "FMNMX",
    "MOV",
    "PLOP3",
    "IABS",
    "IMNMX",
}
MEMORY = {"LDS", "STS", "SHFL", "LDG", "STG", "LD"}
SCHEDULERS = 4
FIXED_LATENCY, READ_LATENCY, QUEUE = 6, 10, 64  # cycles; the last: what the memory pipe holds before issue waits
NO_SCOREBOARD = 7

FROM_MEMORY, FROM_L2 = 750, 280  # cycles of a load


@dataclass(frozen=True)
class Instruction:
    """A line of ``cuobjdump -sass``."""

    address: int
    text: str
    control: int  # stall count, scoreboards set on write and on read, mask of those waited for

    @property
    def operation(self) -> str:
        """With its modifiers, without its predicate."""
        return re.sub(r"^@!?U?P\w+\s+", "", self.text).split()[0]

    @property
    def target(self) -> int | None:
        """Where a branch leads; that of a divergent shuffle is never taken."""
        if not self.operation.startswith("BRA") or "DIV" in self.operation:
            return None
        return int(self.text.rsplit("0x", 1)[1], 16)

    @property
    def is_conditional(self) -> bool:
        """Whether the next instruction may follow, too."""
        return self.text.startswith("@") or re.search(r"BRA\S* !?U?P\d", self.text) is not None


def functions(sass: str) -> dict[str, list[Instruction]]:
    """Instructions of each function, by its mangled name."""
    found: dict[str, list[Instruction]] = {}
    code: list[Instruction] = []
    for line in sass.splitlines():
        if "Function :" in line:
            code = found.setdefault(line.split(":", 1)[1].strip(), [])
        elif first := re.match(r"\s+/\*([0-9a-f]{4,6})\*/\s+(.*?);\s+/\* 0x[0-9a-f]{16} \*/", line):
            code.append(Instruction(int(first[1], 16), first[2].strip(), 0))
        elif (second := re.match(r"\s+/\* 0x([0-9a-f]{16}) \*/", line)) and code:
            code[-1] = Instruction(code[-1].address, code[-1].text, int(second[1], 16) >> 41)
    return found


def loops(code: list[Instruction]) -> list[tuple[int, int]]:
    """First and last instruction of each, by number; a loop ends with a conditional branch back."""
    at = {instruction.address: i for i, instruction in enumerate(code)}
    return [
        (at[target], i)
        for i, instruction in enumerate(code)
        if (target := instruction.target) is not None and instruction.is_conditional and at.get(target, i) < i
    ]


def trip(code: list[Instruction], loop: tuple[int, int], trips_inside: int = 0) -> list[Instruction]:
    """The longest way through a loop; loops inside are run so often, with no loops of their own."""
    begin, end = loop
    at = {instruction.address: i for i, instruction in enumerate(code)}
    inner = {first: last for first, last in loops(code) if begin < first and last < end}
    outermost = {f: e for f, e in inner.items() if not any(a < f and e < b for a, b in inner.items())}

    @cache
    def longest(i: int) -> tuple[int, int | None]:
        """Instructions from number i to the end of the loop, and the next one; negative: the end is not reached."""
        if i == end:
            return 1, None
        if i in outermost:
            inside = len(trip(code, (i, outermost[i]))) * trips_inside if trips_inside else -(10**9)
            return inside + longest(outermost[i] + 1)[0], outermost[i] + 1
        instruction = code[i]
        if instruction.operation.startswith("EXIT") and not instruction.is_conditional:
            return -(10**9), None
        target = at.get(instruction.target, -1) if instruction.target is not None else -1
        ways = []
        if target < 0 or instruction.is_conditional:
            ways.append(i + 1)
        if i < target <= end:
            ways.append(target)
        if not ways:
            return -(10**9), None
        best = max(ways, key=lambda way: longest(way)[0])
        return 1 + longest(best)[0], best

    for i in range(end, begin - 1, -1):  # from the end, so that no recursion is deep
        longest(i)
    way: list[Instruction] = []
    i: int | None = begin
    while i is not None:
        if i in outermost:
            way += trip(code, (i, outermost[i])) * trips_inside
        else:
            way.append(code[i])
        i = longest(i)[1]
    return way


def cycles(way: list[Instruction], warps: int, load_latencies: list[int], trips: int = 12) -> tuple[float, float]:
    """Cycles that a trip of all warps takes, and instructions issued in a cycle. One latency for each LDG."""
    latencies = iter(load_latencies)
    steps = []
    for instruction in way:
        kind = instruction.operation.split(".")[0]
        width = 4 if ".128" in instruction.operation else 2 if ".64" in instruction.operation else 1
        c = instruction.control
        load = next(latencies) if kind == "LDG" else 0
        steps.append((kind, width, max(c & 15, 1), c >> 5 & 7, c >> 8 & 7, c >> 11 & 63, load))
    states = [{"at": 0, "trip": 0, "time": 97 * w, "bars": [0] * 6, "scheduler": w % SCHEDULERS} for w in range(warps)]
    issue, alu = [0] * SCHEDULERS, [0] * SCHEDULERS
    memory, end, issued = 0, 0, 0

    def ready(state: dict) -> int:
        waits = steps[state["at"]][5]
        bars = [state["bars"][b] for b in range(6) if waits >> b & 1]
        return max([state["time"], issue[state["scheduler"]], *bars])

    active = list(states)
    while active:
        now, state = min(((ready(s), s) for s in active), key=lambda pair: pair[0])
        kind, width, stall, on_write, on_read, _, load = steps[state["at"]]
        written = read = now + FIXED_LATENCY
        if kind in MEMORY:
            service = width if kind in ("LDS", "STS") else 1 if kind == "SHFL" else 2 * width
            start = max(now, memory)
            memory = start + service
            written = start + service + (load if kind == "LDG" else LATENCY.get(kind, 30))
            read = start + service + 8
            now = max(now, start - QUEUE)
        elif kind in LATENCY:
            written, read = now + LATENCY[kind], now + READ_LATENCY
        elif kind in HALF_RATE:
            now = max(now, alu[state["scheduler"]])
            alu[state["scheduler"]] = now + 2
        for board, time in ((on_write, written), (on_read, read)):
            if board != NO_SCOREBOARD:
                state["bars"][board] = max(state["bars"][board], time)
        issue[state["scheduler"]], state["time"], issued = now + 1, now + stall, issued + 1
        state["at"] += 1
        if state["at"] == len(steps):
            state["at"], state["trip"] = 0, state["trip"] + 1
            if state["trip"] == trips:
                active.remove(state)
                end = max(end, state["time"])
    return end / trips, issued / end


def mix(way: list[Instruction], most: int = 12) -> str:
    """What a trip consists of."""
    counted = Counter(instruction.operation.split(".")[0] for instruction in way).most_common(most)
    return ", ".join(f"{name} {count}" for name, count in counted)

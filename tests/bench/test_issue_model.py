"""The model of a multiprocessor that predicts kernels: what its cycles follow from."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import issue_model


def line(address, text, stall=1, writes=7, reads=7, waits=0):
    """An instruction as ``cuobjdump -sass`` prints it."""
    control = stall | writes << 5 | reads << 8 | waits << 11
    return f"        /*{address:04x}*/                   {text} ;  /* 0x{0:016x} */\n  /* 0x{control << 41:016x} */\n"


def code(*lines):
    return issue_model.functions("\t\tFunction : kernel\n" + "".join(lines))["kernel"]


def cycles(instructions, warps=1, latencies=()):
    return issue_model.cycles(instructions, warps, list(latencies))[0]


def test_a_warp_waits_as_long_as_its_code_says():
    way = code(line(0, "FADD R0, R1, R2", stall=4), line(16, "FADD R3, R0, R2", stall=2))
    assert cycles(way) == 6
    assert cycles(way, warps=4) == pytest.approx(6, abs=97 * 4 / 12)  # a scheduler each; they begin one after the other


def test_schedulers_issue_one_instruction_a_cycle():
    way = code(*(line(16 * i, "FADD R0, R1, R2") for i in range(100)))
    assert cycles(way, warps=16) == pytest.approx(400, abs=97 * 16 / 12)


def test_integers_are_issued_every_other_cycle():
    way = code(*(line(16 * i, "IADD3 R0, R1, R2, RZ") for i in range(100)))
    assert cycles(way, warps=8) == pytest.approx(400, abs=97 * 8 / 12)


def test_a_load_is_waited_for_where_it_is_used():
    load, use = line(0, "LDG.E.128 R0, [R4.64]", writes=0), line(16, "FADD R0, R0, R2", waits=1)
    assert cycles(code(load, use), latencies=[750]) == pytest.approx(750 + 8 + 2, abs=2)
    assert cycles(code(load, line(16, "FADD R5, R6, R2")), latencies=[750]) < 20


def test_shared_memory_is_served_by_width():
    way = code(*(line(16 * i, "LDS.128 R0, [R4]") for i in range(100)))
    assert cycles(way, warps=8) == pytest.approx(8 * 100 * 4, rel=0.05)


def test_a_trip_takes_the_long_way_and_no_loop_inside():
    instructions = code(
        line(0x00, "MOV R0, R1"),
        line(0x10, "@P0 BRA 0x40"),  # the loop begins here
        line(0x20, "FADD R0, R1, R2"),
        line(0x30, "FADD R0, R1, R2"),
        line(0x40, "@!P1 BRA 0x70"),
        line(0x50, "FMUL R0, R1, R2"),
        line(0x60, "@P2 BRA 0x50"),
        line(0x70, "@P0 BRA 0x10"),
        line(0x80, "EXIT"),
    )
    loop = max(issue_model.loops(instructions), key=lambda pair: pair[1] - pair[0])
    assert [i.address for i in issue_model.trip(instructions, loop)] == [0x10, 0x20, 0x30, 0x40, 0x70]
    inside = [i.address for i in issue_model.trip(instructions, loop, trips_inside=2)]
    assert inside == [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x50, 0x60, 0x70]

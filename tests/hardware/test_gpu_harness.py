"""The harness of ``make gpu-test``, ``gpu-bench`` and ``gpu-profile`` beside a stand-in for the driver: no GPU."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
sys.path.insert(0, str(Path(__file__).resolve().parent / "gpu"))

import test_memory_errors as memory_errors
from harness import bench, profile
from harness import tests as groups
from harness.session import Session
from measured import Measured
from results import Result, Row

pytest.importorskip("xdist")

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = ROOT / "tests/hardware/gpu/stand_in"


def environment(**settings):
    """Of a process that believes in a GPU."""
    given = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "GECO", "TRITON", "MAKE", "GPU", "ONLY"))
    }
    return given | {
        "PYTHONPATH": f"{STAND_IN}{os.pathsep}{ROOT / 'tests/hardware/gpu'}",
        "PATH": f"{STAND_IN / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        **settings,
    }


@pytest.fixture
def rehearse(tmp_path):
    """Runs a stage in small: exit status, output, folder of results."""

    def stage(name, only, **settings):
        settings = {"GPU_RESULTS": str(tmp_path / "kept"), "ONLY": only} | settings
        (tmp_path / "results").mkdir(exist_ok=True)
        result = subprocess.run(
            [sys.executable, STAND_IN / "rehearsal.py", name, tmp_path],
            capture_output=True,
            text=True,
            env=environment(**settings),
            timeout=300,
        )
        return result.returncode, result.stdout + result.stderr, tmp_path / "kept"

    return stage


def test_the_stage_of_tests(rehearse):
    """Rows, JUnit's file, log; what is left out is said, and none of it fails the stage."""
    only = "(reference-gpu and errors and (three_kernels or little)) or memcheck"
    status, output, kept = rehearse("test", only)
    assert status == 0, output
    log = (kept / "test.log").read_text()
    assert "-DGECO_EXT_CUDA_ARCHITECTURES=99-real" in log
    assert "built for 99-real" in output
    rows = [line.split("\t") for line in (kept / "test.tsv").read_text().splitlines()]
    outcomes = {tuple(row[:2]) for row in rows[1:]}
    assert {("steps", "collected"), ("steps", "passed"), ("sanitizers", "skipped")} <= outcomes
    passed = [row[3] for row in rows if row[1] == "passed"]
    assert any("out_of_memory" in test for test in passed)
    assert [row[4] for row in rows if "three_kernels" in row[3]] == ["the profiler sees no kernels here"]
    assert "left out: tests/hardware/gpu/test_memory_errors.py::test_compute_sanitizer[memcheck] (no GPU that" in output
    assert "memcheck" in (kept / "left-out.txt").read_text()
    cases = ElementTree.parse(kept / "test.xml").getroot().iter("testcase")
    assert len(list(cases)) == sum(row[1] in ("passed", "skipped") for row in rows)
    assert len(list(kept.iterdir())) <= 8  # of what may come back from a rented machine


def test_the_stage_of_measurements_and_that_of_profiles(rehearse, tmp_path):
    """The result of the card, the README's table, the bars; the counters and times of a step."""
    (tmp_path / "README.md").write_text(
        "<!-- GPU benchmark tables: make gpu-bench -->\n<!-- end of GPU benchmark tables -->\n"
    )
    status, output, kept = rehearse("bench", "^RE, 1x1x8x8$")
    assert status == 0, output
    result = Result.load(tmp_path / "results/h100.json")
    assert result.machine["device"] == "NVIDIA H100 80GB HBM3"
    (row,) = result.rows
    assert {"geco_ext", "reference", "copy", "floor", "operator", "item"} <= set(row.seconds)
    assert "On an NVIDIA H100 80GB HBM3" in (tmp_path / "README.md").read_text()
    assert Measured(kept / "bench.jsonl").rows() == [row]
    assert (kept / "h100.json").read_text() == (tmp_path / "results/h100.json").read_text()
    assert "not measured" in (kept / "bars.txt").read_text()

    status, output, kept = rehearse("profile", "small")
    assert status == 0, output
    assert "the build is there already" in output  # since the stage before
    text = (kept / "profile.txt").read_text()
    assert "us a step" in text
    assert "=== small: counters\ngeco::cuda::lagrangian_kernel" in text
    assert "small: Duration us 95.10" in output


def test_counters_that_the_driver_refuses(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{STAND_IN / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_REFUSES", "1")
    monkeypatch.setenv("GPU_RESULTS", str(tmp_path))
    with Session("profile") as session:
        assert "administrators alone" in profile._counters(session, tmp_path / "profile.txt", "small")
    assert "counters of small (the driver gives counters to" in (tmp_path / "left-out.txt").read_text()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert profile._ncu() or "ncu is not installed" in profile._refusal()
    Session("profile")  # another run forgets what the last one left out
    assert (tmp_path / "left-out.txt").read_text() == ""


def test_a_process_that_takes_too_long_is_stopped_with_all_it_started(tmp_path, monkeypatch):
    monkeypatch.setenv("GPU_RESULTS", str(tmp_path))
    with Session("test") as session:
        process = session.start("shell", ["sh", "-c", "echo begun; sleep 600 | cat"], 1)
        assert process.wait() < 0
        assert process.was_stopped
        assert process.lines == ["begun"]
    assert "[shell] begun" in (tmp_path / "test.log").read_text()


def test_measurements_have_nine_tenths_of_the_time(tmp_path, monkeypatch):
    """The rest is for the scenario that has begun, and for the report."""
    monkeypatch.setenv("GPU_RESULTS", str(tmp_path))
    monkeypatch.setenv("GPU_SECONDS", "200")
    asked = []

    def python(session, name, arguments, seconds):
        asked.append((float(arguments[arguments.index("--limit") + 1]), seconds))
        return SimpleNamespace(lines=[], was_stopped=False, wait=lambda: 0)

    monkeypatch.setattr(Session, "python", python)
    with Session("bench") as session:
        assert bench._measure(session, tmp_path / "rows.jsonl")
    ((limit, seconds),) = asked
    assert limit == pytest.approx(180, abs=2)
    assert limit < seconds < 200


def test_a_worker_whose_gpu_is_lost_is_replaced(tmp_path):
    """An illegal address costs the tests of its process, so does a failed capture; here that is the one test."""
    (tmp_path / "test_crash.py").write_text(
        "import os, time, torch\n"
        "def test_a_crash():\n"
        "    def synchronize(device=None): raise RuntimeError('CUDA error: an illegal memory access')\n"
        "    torch.cuda.synchronize = synchronize\n"
        "    torch.cuda.synchronize()\n"
        "def test_b_of_another_process(): torch.cuda.synchronize()\n"
        "def test_c_that_does_not_end(): time.sleep(600)\n"
        "def test_d_whose_capture_fails():\n"
        "    torch.cuda.current_stream = lambda: 'of the capture'\n"
        "    raise RuntimeError\n"
        "def test_e_of_a_fourth(): assert torch.cuda.current_stream() == torch.cuda.default_stream()\n"
    )
    rows = tmp_path / "rows.tsv"
    settings = {"GECO_EXT_TEST_ROWS": str(rows), "GECO_EXT_TEST_GROUP": "g", "GECO_EXT_TEST_LONGEST": "2"}
    paths = os.pathsep.join(map(str, (STAND_IN, ROOT / "tests/hardware/gpu", ROOT / "tests", ROOT / "tests/support")))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "harness.rows", "-p", "conftest", "-p", "no:cacheprovider"]
    subprocess.run(
        [*command, "-n", "1", "--maxschedchunk", "1", "--rootdir", tmp_path, tmp_path / "test_crash.py"],
        env=environment(**settings, PYTHONPATH=paths),
        cwd=tmp_path,
        timeout=120,
    )
    found = [line.split("\t") for line in rows.read_text().splitlines()]
    outcomes = {row[3].split("::")[-1]: row[1] for row in found}
    assert outcomes == {
        "5": "collected",
        "test_a_crash": "failed",
        "test_b_of_another_process": "passed",
        "test_c_that_does_not_end": "failed",
        "test_d_whose_capture_fails": "failed",
        "test_e_of_a_fourth": "passed",
    }
    assert any("illegal memory access" in row[4] for row in found)


def test_what_is_left_out_is_counted(tmp_path, monkeypatch, capsys):
    """By the clock, and where a process ended before its tests did."""
    monkeypatch.setenv("GPU_RESULTS", str(tmp_path))
    lines = ["a\tcollected\t\t9\t", "a\tpassed\t0.1\tt1\t", "a\tskipped\t0.1\tt2\tno two GPUs"]
    lines += ["a\tleft out\t0.1\tt3\tleft out: the time was up", "a\tfailed\t0.1\tt4\tassert 0"]
    with Session("test") as session:
        groups._summary(session, lines)
    output = capsys.readouterr().out
    assert "a: 1 failed, 1 left out, 1 passed, 1 skipped, of 9" in output
    assert "FAILED t4: assert 0" in output
    assert "6 of 9 tests of group a (the time was up)" in (tmp_path / "left-out.txt").read_text()


def test_a_group_without_time_for_any_test_fails_the_stage(tmp_path, monkeypatch, capsys):
    """Nothing failed, but nothing was tried either. Groups that lack a tool or a second GPU are no failure."""
    monkeypatch.setenv("GPU_RESULTS", str(tmp_path))
    left_out = "left out\t0.0\tt\tleft out: the time was up\n"
    outcomes = {}

    def start(session, group, seconds):
        with (tmp_path / "test.tsv").open("a") as rows:
            rows.writelines(f"{group.name}\t{line}" for line in ["collected\t\t3\t\n", *outcomes[group.name]])
        return SimpleNamespace(name=group.name, lines=["done"], was_stopped=False, wait=lambda: 0)

    monkeypatch.setattr(groups, "_start", start)
    for tried in (True, False):
        outcomes |= {group.name: ["passed\t0.1\tt\t\n", left_out] for group in (*groups.BESIDE, groups.LARGE)}
        outcomes["sanitizers"] = ["skipped\t0.0\tt\tno compute-sanitizer\n"]
        outcomes["first"] = ["skipped\t0.0\tt\tno two GPUs\n", left_out, *(["passed\t0.1\tt\t\n"] if tried else [])]
        with Session("test") as session:
            assert groups.run(session) is tried
            assert session.left_out_some
        assert ("there was no time for any test of first\n" in capsys.readouterr().out) is not tried


@pytest.fixture
def conftest(request):
    """The one of this folder; those of other folders have the same name."""
    return request.config.pluginmanager.get_plugin(str(ROOT / "tests/conftest.py"))


def test_one_of_each_kind_comes_first(conftest):
    def item(name, backend, case):
        nodeid = f"{name}[{backend}-{case}]"
        callspec = SimpleNamespace(params={"backend": backend})
        return Item(nodeid, "file", name, callspec)

    kinds = [(name, backend) for name in "abc" for backend in ("cuda", "triton")]
    items = [item(*kind, case) for kind in kinds for case in range(20)]
    ordered = conftest._one_of_each_kind_first(items)
    assert set(ordered) == set(items)
    for start in range(0, len(items), len(kinds)):
        part = ordered[start : start + len(kinds)]
        assert {(i.originalname, i.callspec.params["backend"]) for i in part} == set(kinds)


class Item(SimpleNamespace):
    """What the order of tests looks at."""

    def __init__(self, nodeid, path, originalname, callspec):
        super().__init__(nodeid=nodeid, path=path, originalname=originalname, callspec=callspec)

    def __hash__(self):
        return hash(self.nodeid)


def test_no_test_begins_when_time_is_up(conftest, monkeypatch):
    monkeypatch.setattr(conftest, "UNTIL", 0.0)
    with pytest.raises(pytest.skip.Exception, match="^left out: "):
        conftest.pytest_runtest_setup(None)


def test_every_group_has_its_files():
    for group in (groups.FIRST, *groups.BESIDE, groups.LARGE):
        assert group.files
        assert all(path.exists() for path in group.files), group


def test_a_sanitizer_that_refuses_the_device(monkeypatch):
    monkeypatch.setenv("PATH", f"{STAND_IN / 'bin'}{os.pathsep}{os.environ['PATH']}")
    status, output = memory_errors.sanitized("memcheck", ["cpu", "reference"])
    found, reason = memory_errors.verdict(status, output)
    assert found == "refused"
    assert "Device not supported" in reason


def test_measured_rows_survive_a_crash(tmp_path):
    """The process that follows goes on behind the scenario that took the one before."""
    rows = tmp_path / "rows.jsonl"
    row = Row("a", 0, True, {"geco_ext": 1.0}, {"geco_ext": 11}, {})
    result = Result({"device": "NVIDIA H100 80GB HBM3"}, 0.02, [])
    first = Measured(rows)
    first.begin(result)
    first.start("a")
    first.add(row)
    first.start("b")
    second = Measured(rows)
    second.begin(result)
    assert second.labels() == {"a", "b"}
    assert second.failures() == {"b": "its process ended, or was ended"}
    assert second.result().rows == [row]
    assert json.loads(rows.read_text().splitlines()[0])["machine"] == result.machine
    with pytest.raises(ValueError, match="nothing was measured"):
        Measured(tmp_path / "none.jsonl").result()

"""The benchmarks compare like with like: what is timed computes the same, and a candidate that does not is noticed."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import bars
import footprint
import plots
import ratios
import report
from agreement import check_agreement
from candidates import Images, Step, floor, operator, steps
from measured import Measured
from ratios import compare
from results import Result, Row, card
from scenarios import GPU_SCENARIOS, SCENARIOS
from timing import Timing, measure

from geco_ext.backends import load

CPU = torch.device("cpu")
TINY = {scenario.label: scenario for scenario in SCENARIOS}["RE, 1x1x8x8"]


def label(scenario):
    return scenario.label


@pytest.mark.parametrize("scenario", SCENARIOS, ids=label)
def test_all_candidates_of_a_scenario_compute_the_same(scenario):
    small = scenario.shrunken()
    check_agreement(steps(small, CPU, compiler=None))
    operator(small, CPU)()
    floor(small, CPU)()


@pytest.mark.parametrize("scenario", [SCENARIOS[0], SCENARIOS[1], SCENARIOS[-1]], ids=label)
def test_the_forms_that_are_compiled_are_one_graph_and_compute_the_same(scenario):
    check_agreement(steps(scenario.shrunken(), CPU, compiler="eager"))


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: setattr(plain, "lr", 0.06),
        lambda plain: setattr(plain, "proportional", 4.0),
        lambda plain: setattr(plain, "alpha", 0.98),
        lambda plain: setattr(plain, "scale", 1.1 * plain.scale),
    ],
    ids=["lr", "proportional", "alpha", "scale"],
)
def test_a_candidate_with_another_update_is_found_out(change):
    candidates = steps(TINY, CPU, compiler=None)
    change(candidates["eager: F.mse_loss"].criterion)
    with pytest.raises(AssertionError, match=r"eager: F\.mse_loss, step"):
        check_agreement(candidates)


def test_a_candidate_with_another_window_is_found_out():
    scenario = next(s for s in SCENARIOS if "pNCC 8, stride 4" in s.label).shrunken()
    candidates = steps(scenario, CPU, compiler=None)
    candidates["eager: PxP"].criterion.constraints.constraints[1].eps *= 100
    with pytest.raises(AssertionError, match="eager: PxP, step"):
        check_agreement(candidates)


@pytest.mark.parametrize(("scenarios", "promised"), [(SCENARIOS, bars.BARS), (GPU_SCENARIOS, bars.GPU_BARS)])
def test_labels_tell_scenarios_apart_and_bars_name_some(scenarios, promised):
    labels = [scenario.label for scenario in scenarios]
    assert len(set(labels)) == len(labels)
    assert {bar.label for bar in promised} <= set(labels)
    compared = {bar.label for bar in promised if bar.claim.startswith("torch.compile")}
    assert all(scenario.compiled for scenario in scenarios if scenario.label in compared)


@pytest.mark.parametrize("scenario", [s for s in GPU_SCENARIOS if s.label not in map(label, SCENARIOS)], ids=label)
def test_all_candidates_of_a_gpu_scenario_compute_the_same(scenario):
    """Rehearsed on the CPU, in small."""
    check_agreement(steps(scenario.shrunken(), CPU, compiler=None))


def test_others_take_part():
    assert "item" in steps(TINY, CPU, compiler=None)
    pytest.importorskip("cooper")
    assert "cooper" in steps(replace(TINY, paper=True), CPU, compiler=None)


def test_a_form_far_behind_leaves_its_turns_to_the_others():
    waits = {"eager: fast": 1000, "eager: slow": 100_000, "floor": 100}
    calls = {name: lambda n=n: sum(range(n)) for name, n in waits.items()}
    timings = measure(calls, seconds=0.05, turn_seconds=0.002, device=CPU)
    assert timings["eager: slow"].times <= 10 < timings["eager: fast"].times
    assert timings["floor"].seconds < timings["eager: fast"].seconds < timings["eager: slow"].seconds


def timings(**milliseconds):
    return {name.replace("_form_", ": "): Timing(value / 1e3, 20) for name, value in milliseconds.items()}


def row(scenario=TINY, threads=2, **milliseconds):
    times = {"geco_ext": 1, "reference": 9, "eager_form_a": 5, "eager_form_b": 4, "operator": 0.9, "floor": 0.8}
    return Row.of(scenario, threads, timings(**(times | milliseconds)))


def test_a_comparison_is_with_the_fastest_form():
    assert row().takes("eager") == pytest.approx(4)
    assert row().won == {"eager": "b"}
    assert row().takes("compile") is None


def test_bars_pass_miss_or_are_not_measured():
    lines, passed = bars.judge([row()])
    assert passed
    assert any("4.00x pass, aim reached" in line for line in lines)
    assert sum("not measured" in line for line in lines) == len(bars.BARS) - 1
    assert not bars.judge([row(eager_form_b=1.9)])[1]


def test_slower_than_the_reference_backend_is_a_miss():
    lines, passed = bars.judge([row(reference=0.5)])
    assert not passed
    assert any("0.50x MISS" in line and "RE, 1x1x8x8, reference" in line for line in lines)


def test_results_survive_their_file_and_make_tables(tmp_path):
    result = Result({"processor": "a"}, 0.02, [row(), row(replace(TINY, in_readme=False), threads=1)])
    result.save(tmp_path / "result.json")
    assert Result.load(tmp_path / "result.json") == result
    assert report.readme_table(result.rows).count("RE, 1x1x8x8") == 1
    page = report.full_page(result, "Results")
    assert "## 2 threads" in page
    assert "## 1 thread\n" in page
    assert "4.00x (b)" in page


def gpu_row(**milliseconds):
    counts = {"geco_ext": 3, "eager: a": 50, "eager: b": 40}
    times = {"geco_ext": 1, "reference": 9, "triton": 1.25, "copy": 0.6, "floor": 0.9, "operator": 0.9}
    times |= {"eager_form_a": 5, "eager_form_b": 4}
    scenario = GPU_SCENARIOS[0]
    return Row.of(scenario, 0, timings(**(times | milliseconds)), counts, {name: n << 20 for name, n in counts.items()})


def test_bars_of_a_gpu():
    lines, passed = bars.judge([gpu_row()])
    assert not passed
    assert lines[0] == "GPU"
    assert any("0.90x pass" in line and "share of the copy rate" in line for line in lines)
    assert any("0.80x MISS" in line and "Triton" in line for line in lines)


def test_launches_are_counted_by_candidate():
    gpu, cpu = torch.autograd.DeviceType.CUDA, torch.autograd.DeviceType.CPU
    events = [
        ("candidate a", cpu, 0.0, 10.0),
        ("candidate a", gpu, 1.0, 2.0),
        ("kernel", gpu, 1.0, 2.0),
        ("Memset", gpu, 9.0, 9.5),
        ("candidate b", cpu, 20.0, 30.0),
        ("aten::add", cpu, 21.0, 22.0),
        ("kernel", gpu, 25.0, 28.0),
    ]
    assert footprint.count_launches(events) == {"a": 2, "b": 1}
    assert footprint.count_launches(events[:1]) == {}
    assert footprint.launches({"a": lambda: None}, CPU) == footprint.peak_bytes({"a": lambda: None}, CPU) == {}


def test_the_table_and_plot_of_a_gpu(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    readme = tmp_path / "README.md"
    begin, end = report.GPU_MARKS
    readme.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    monkeypatch.setattr(report, "HERE", tmp_path)
    monkeypatch.setattr(report, "README", readme)
    report.write_tables()  # nothing measured yet
    assert "old" in readme.read_text()
    row = gpu_row()
    for device in ("NVIDIA H200", "NVIDIA H100 80GB HBM3"):
        result = Result(a_gpu(device), 0.02, [row, replace(row, elements=row.elements * 4)])
        report.report_of(result).keep(result)
    text = readme.read_text()
    assert text.startswith(f"before\n{begin}\nOn an NVIDIA H100 80GB HBM3 (CUDA 13.0, PyTorch 2.11, ")
    assert text.count("| 1.25x | 3, 40 | 3 MiB, 40 MiB |") == 4  # each card has its table
    assert text.index("H100") < text.index("NVIDIA H200")
    assert text.endswith(f"{end}\nafter\n")
    results = tmp_path / "results"
    assert "on an NVIDIA H200" in (results / "h200.md").read_text()
    assert "## GPU" in (results / "h200.md").read_text()
    report.write_tables()  # from the committed results alone: the same
    assert readme.read_text() == text
    pytest.importorskip("matplotlib")
    assert "<svg" in (results / "h100.svg").read_text()
    assert plots.curve([row], "RE", 0, "triton") == [(row.elements, pytest.approx(1.25 / 0.9))]


def a_gpu(device):
    of_gpu = {"cuda": "13.0", "torch": "2.11", "triton": "3.6", "copy_rate_in_gigabytes": 4000}
    return {"device": device} | of_gpu


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("AMD Instinct MI300X", "mi300x"),
    ],
)
def test_a_card_has_a_short_name(device, name):
    assert card(device) == name


def test_rows_measured_again_replace_those_of_before():
    old, new = Result(a_gpu("a GPU"), 0.02, [gpu_row(), replace(gpu_row(), label="other")]), gpu_row(geco_ext=2)
    result = Result(a_gpu("a GPU") | {"copy_rate_in_gigabytes": 4100}, 0.02, [new]).beside(old)
    assert [row.label for row in result.rows] == [new.label, "other"]
    assert result.rows[0] == new
    with pytest.raises(ValueError, match="cannot stand beside"):
        Result(a_gpu("another"), 0.02, [new]).beside(old)


def test_a_run_keeps_what_it_measured(tmp_path, monkeypatch, capsys):
    """As "make gpu" starts it: a scenario that fails is named, and costs no other its row."""
    (tmp_path / "results").mkdir()
    bad = GPU_SCENARIOS[1].label
    (tmp_path / "README.md").write_text("\n".join(report.GPU_MARKS) + "\n")

    def row(scenario, *_):
        if scenario.label == bad:
            raise RuntimeError("out of something")
        return replace(gpu_row(), label=scenario.label)

    monkeypatch.setattr(report, "HERE", tmp_path)
    monkeypatch.setattr(report, "README", tmp_path / "README.md")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(ratios, "machine", lambda device: a_gpu("NVIDIA H100 80GB HBM3"))
    monkeypatch.setattr(ratios, "_is_lost", lambda device: False)
    monkeypatch.setattr(ratios, "compare", row)
    monkeypatch.setattr(sys, "argv", ["ratios.py", "--device", "cuda", "--write", "--rows", str(tmp_path / "rows")])
    with pytest.raises(SystemExit, match=re.escape(bad)):
        ratios.main()
    output = capsys.readouterr()
    assert f"{bad}: FAILED" in output.out
    assert "out of something" in output.err
    kept = [row.label for row in Result.load(tmp_path / "results/h100.json").rows]
    assert kept == [scenario.label for scenario in GPU_SCENARIOS if scenario.label != bad]
    measured = Measured(tmp_path / "rows")
    assert [row.label for row in measured.rows()] == kept
    assert "out of something" in measured.failures()[bad]


def test_after_an_illegal_address_another_process_goes_on(tmp_path, monkeypatch):
    def lost(scenario, *_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ratios, "machine", lambda device: a_gpu("a GPU"))
    monkeypatch.setattr(ratios, "compare", lost)
    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    monkeypatch.setattr(sys, "argv", ["ratios.py", "--device", "cuda", "--rows", str(tmp_path / "rows")])
    for crashes in (1, 2):
        with pytest.raises(SystemExit) as ended:
            ratios.main()
        assert ended.value.code == ratios.LOST
        assert list(Measured(tmp_path / "rows").failures()) == [s.label for s in GPU_SCENARIOS[:crashes]]


def test_the_machine_is_described_first_thing():
    """In a process of its own: nothing has called a backend before."""
    program = "import results, torch; print(results.machine(torch.device('cpu'))['torch'])"
    environment = {**os.environ, "PYTHONPATH": str(Path(ratios.__file__).parent)}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert result.stdout.strip() == torch.__version__, result.stderr


def test_a_whole_comparison_runs(monkeypatch):
    monkeypatch.setattr("ratios.steps", lambda scenario, device: steps(scenario, device, compiler="eager"))
    found = compare(TINY, seconds=0.1, turn_seconds=0.005, device=CPU)
    assert {"geco_ext", "reference", "operator", "floor", "eager: F.mse_loss"} <= set(found.seconds)
    assert found.takes("eager") > 0


def test_a_step_on_the_reference_backend_runs_its_backward_there_too(monkeypatch):
    scaled = []
    monkeypatch.setattr(load("reference"), "scale_gradients_in_place", lambda g, f: scaled.append(g))
    candidates = steps(TINY, CPU, compiler=None)
    candidates["reference"]()
    assert len(scaled) == 1


def test_candidates_start_from_the_same_images():
    images = Images(TINY, CPU)
    first, second = (Step(None, images, None) for _ in range(2))
    assert torch.equal(first.x_hat, second.x_hat)
    assert first.x_hat.data_ptr() != second.x_hat.data_ptr()

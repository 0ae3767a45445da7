"""Runs in two real processes: the trajectory of one, and what happens when one of them ends."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import lightning as L
import pytest
import tiny_runs
import torch
from tiny_runs import TINY_OPTIONS, assert_same_end, final, one_line, tiny_settings

from geco_ext import GECOLoss, ReconstructionError
from geco_ext.cli import main
from geco_ext.training.models import build_model
from geco_ext.training.run_folder import RunFolder, read_history
from geco_ext.training.session import resume, start

STEPS = 20
SETTINGS = {"steps": STEPS, "constraints": ("re=0.1", "pncc=0.5:4")}
GECO = [sys.executable, "-m", "geco_ext", "train"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
ENOUGH = 180  # seconds until a hang is a hang, on a machine with much else to do

WORKER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    sys.path[:0] = sys.argv[2:]
    from test_several_processes import watched_run

    watched_run(Path(sys.argv[1]), devices=2)
    """
)


class Watch(L.Callback):
    """Keeps the images of each step and the criterion's state after it, before another process could mend it."""

    def __init__(self):
        self.images, self.states = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
        self.images.append(batch["x"].clone())
        self.states.append(module.criterion._block.clone())


def watched_run(path, devices):
    session = start(tiny_settings(**SETTINGS, devices=devices), path)
    watch = Watch()
    session.trainer.callbacks.append(watch)
    session.train()
    rank = session.trainer.global_rank
    seen = {"images": watch.images, "states": watch.states, "weights": session.module.model.state_dict()}
    torch.save(seen, path.with_name(f"{path.name}.{rank}"))


def seen(path, rank):
    return torch.load(path.with_name(f"{path.name}.{rank}"))


@pytest.fixture(scope="module")
def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run in one process."""
    path = tmp_path_factory.mktemp("one") / "run"
    watched_run(path, devices=1)
    return path


@pytest.fixture(scope="module")
def two(tmp_path_factory, environment):
    """The same run in two processes, by torchrun."""
    folder = tmp_path_factory.mktemp("two")
    worker = folder / "worker.py"
    worker.write_text(WORKER)
    helpers = [str(Path(file).parent) for file in (__file__, tiny_runs.__file__)]
    command = [*TORCHRUN, str(worker), str(folder / "run"), *helpers]
    subprocess.run(command, env=environment, check=True, timeout=ENOUGH)
    return folder / "run"


@pytest.mark.slow
def test_the_ranks_hold_the_same_state_and_weights_to_the_bit(two):
    first, second = seen(two, 0), seen(two, 1)
    assert len(first["states"]) == STEPS
    for states in zip(first["states"], second["states"], strict=True):
        assert torch.equal(*(state.nan_to_num() for state in states))
    torch.testing.assert_close(first["weights"], second["weights"], rtol=0, atol=0)


@pytest.mark.slow
def test_the_ranks_share_each_batch_without_overlap(one, two):
    shares = zip(seen(two, 0)["images"], seen(two, 1)["images"], strict=True)
    for (first, second), whole in zip(shares, seen(one, 0)["images"], strict=True):
        assert torch.equal(first, whole[0::2])
        assert torch.equal(second, whole[1::2])


@pytest.mark.slow
def test_two_processes_follow_the_trajectory_of_one(one, two):
    """Posterior samples included: sums in another order are all that differs, in float32 for the images."""
    for of_two, of_one in zip(seen(two, 0)["states"], seen(one, 0)["states"], strict=True):
        torch.testing.assert_close(of_two, of_one, rtol=1e-6, atol=1e-9, equal_nan=True)
    history, straight = read_history(two / "metrics.csv"), read_history(one / "metrics.csv")
    assert history.keys() == straight.keys()
    for name, values in history.items():
        assert values == pytest.approx(straight[name], rel=1e-4, abs=1e-6), name
    torch.testing.assert_close(seen(two, 0)["weights"], seen(one, 0)["weights"], rtol=1e-4, atol=1e-5)
    assert torch.equal(final(two)["random_state"]["cpu"], final(one)["random_state"]["cpu"])


@pytest.mark.slow
def test_a_conditional_model_follows_it_too(tmp_path, environment):
    """ConvDraw draws noise at every step of its own, and each rank has its share of the contexts."""
    options = {"steps": 2, "hidden": 4, "latent": 2, "downsampling": 2}
    settings = tiny_settings(model="convdraw", model_options=options, data="digits-sum", steps=8)
    start(settings, tmp_path / "one").train()
    given = {"--model": "convdraw", "--data": "digits-sum", "--size": 8, "--batch-size": 500, "--steps": 8}
    command = [*TORCHRUN, "-m", "geco_ext", "train", "--out", str(tmp_path / "two"), "--threads", "1"]
    command += ["--accelerator", "cpu", "--checkpoint-every", str(settings.checkpoint_every)]
    command += [str(part) for item in given.items() for part in item]
    command += [part for name, value in options.items() for part in ("--model-option", f"{name}={value}")]
    subprocess.run(command, env=environment, check=True, timeout=ENOUGH)
    of_two, of_one = (read_history(tmp_path / name / "metrics.csv") for name in ("two", "one"))
    assert of_two.keys() == of_one.keys()
    for name, values in of_two.items():
        assert values == pytest.approx(of_one[name], rel=1e-4, abs=1e-6), name
    states = [final(tmp_path / name)["state_dict"] for name in ("two", "one")]
    torch.testing.assert_close(*states, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_command_resumes_bit_for_bit_and_reports_once(tmp_path, two, environment):
    path = tmp_path / "run"
    shutil.copytree(two, path)
    checkpoint = RunFolder(path).checkpoint_at(15)
    command = [*GECO, "--resume", str(checkpoint), "--devices", "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=ENOUGH)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| patch_ncc ") == 1
    assert f"{STEPS}/{STEPS}" in done.stderr
    assert (path / "results.json").is_file()
    assert_same_end(path, two)


@pytest.mark.slow
def test_another_number_of_processes_goes_on_where_two_were(tmp_path, one, two):
    path = tmp_path / "run"
    shutil.copytree(two, path)
    resume(RunFolder(path).checkpoint_at(15), devices=1).train()
    torch.testing.assert_close(final(path)["state_dict"], final(one)["state_dict"], rtol=1e-4, atol=1e-5)


@pytest.fixture
def running(tmp_path, environment):
    """A run in two processes that is under way, has saved, and is far from its end."""
    path = tmp_path / "run"
    options = [*TINY_OPTIONS, "--checkpoint-every", "10", "--steps", "200000", "--devices", "2", "--out", str(path)]
    process = subprocess.Popen(
        [*GECO, *options], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + ENOUGH
        while not RunFolder(path).last_checkpoint.is_file():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the run did not start"
            time.sleep(0.05)
        yield process, path
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_other_with_an_error_and_the_run_resumes(running, rank):
    process, path = running
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid if rank == 0 else int(child), signal.SIGKILL)
    _, messages = process.communicate(timeout=ENOUGH)  # both have ended when nobody holds stderr any more
    assert process.returncode != 0
    survivor = messages.splitlines()[-1]
    # Of rank 1 the first process hears from gloo, or from Lightning's observer where a step takes longer.
    assert "another process of this training is lost" in survivor or f"Child process with PID {child}" in survivor

    folder = RunFolder(path)
    stopped = folder.read_checkpoint(folder.last_checkpoint)["global_step"]
    assert stopped % 10 == 0
    resume(path, steps=stopped + 2, devices=1).train()
    assert folder.read_checkpoint(folder.last_checkpoint)["global_step"] == stopped + 2


@pytest.mark.slow
def test_control_c_saves_once_and_ends_both(running):
    process, path = running
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, messages = process.communicate(timeout=ENOUGH)
    assert process.returncode == 130
    assert messages.count("geco: interrupted") == 1
    assert messages.splitlines()[-1] == f"geco: interrupted; continue with: geco train --resume {path}"
    folder = RunFolder(path)
    assert (
        folder.read_checkpoint(folder.last_checkpoint)["global_step"] == read_history(folder.metrics_file)["step"][-1]
    )


def test_devices_other_than_the_processes_of_torchrun_are_refused(tmp_path, capsys, monkeypatch):
    """They would train a run each, in one folder."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", *TINY_OPTIONS, "--devices", "1", "--out", str(tmp_path / "run")]) == 2
    assert "devices must be the 2 processes torchrun has started, got 1" in one_line(capsys.readouterr())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("nvp", {"latent": 2, "flows": 1, "hidden": 16, "channels": 4}),
        ("convdraw", {"steps": 2, "hidden": 8, "latent": 2}),
        ("convdraw", {"steps": 2, "hidden": 8, "latent": 2, "shared": 0}),
    ],
)
@pytest.mark.parametrize("conditional", [False, True])
def test_every_weight_has_a_gradient_in_every_step(model, options, conditional):
    """DistributedDataParallel waits for all of them."""
    if conditional and model == "nvp":
        pytest.skip("takes no context")
    network = build_model(model, (1, 8, 8), (2, 8, 8) if conditional else None, options)
    x = torch.rand(4, 1, 8, 8)
    output = network(x, torch.rand(4, 2, 8, 8)) if conditional else network(x)
    GECOLoss([ReconstructionError(0.1)])(output.x_hat, x, output.kl).backward()
    without = [name for name, weight in network.named_parameters() if weight.requires_grad and weight.grad is None]
    assert without == []

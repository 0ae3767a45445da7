import shutil
import signal

import pytest
import torch
from tiny_runs import BATCHES_PER_EPOCH, assert_same_end, tiny_settings, train_until

from geco_ext.training.run_folder import RunFolder
from geco_ext.training.session import resume, start

STEPS = 12


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run trained without a stop, and how it ended."""
    path = tmp_path_factory.mktemp("straight") / "run"
    start(tiny_settings(steps=STEPS), path).train()
    return path


@pytest.mark.parametrize("step", [2 * BATCHES_PER_EPOCH, 2 * BATCHES_PER_EPOCH + 1])
def test_an_interrupted_run_ends_bit_for_bit_like_a_straight_one(tmp_path, straight, step):
    path = tmp_path / "run"
    session = start(tiny_settings(steps=STEPS), path)
    handler = signal.getsignal(signal.SIGINT)
    train_until(session, step)
    assert signal.getsignal(signal.SIGINT) is handler
    assert RunFolder(path).read_checkpoint(RunFolder(path).last_checkpoint)["global_step"] == step
    torch.rand(100)  # whatever the process did with the random state in between
    resume(path).train()
    assert_same_end(path, straight)


def test_interrupted_twice(tmp_path, straight):
    path = tmp_path / "run"
    train_until(start(tiny_settings(steps=STEPS), path), 2)
    train_until(resume(path), 8)
    resume(path).train()
    assert_same_end(path, straight)


def test_a_periodic_checkpoint_can_be_resumed_after_the_last_one_is_lost(tmp_path, straight):
    path = tmp_path / "run"
    shutil.copytree(straight, path)
    folder = RunFolder(path)
    content = folder.last_checkpoint.read_bytes()
    folder.last_checkpoint.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"last\.ckpt is truncated or corrupt.*step_00000010\.ckpt") as failure:
        resume(path)
    assert "\n" not in str(failure.value)
    resume(folder.checkpoint_at(10)).train()
    assert_same_end(path, straight)


def test_a_finished_run_has_nothing_left_to_train(tmp_path, straight):
    path = tmp_path / "run"
    shutil.copytree(straight, path)
    resume(path).train()
    assert_same_end(path, straight)


def test_a_run_can_be_prolonged(tmp_path, straight):
    path = tmp_path / "run"
    shutil.copytree(straight, path)
    resume(path, steps=STEPS + 3).train()
    folder = RunFolder(path)
    assert folder.read_checkpoint(folder.last_checkpoint)["global_step"] == STEPS + 3
    assert folder.read_configuration().settings.steps == STEPS + 3
    with pytest.raises(ValueError, match="steps must be at least the 15 steps done, got 5"):
        resume(path, steps=5)


def test_the_newest_periodic_checkpoints_stay(straight):
    names = [file.name for file in RunFolder(straight).periodic_checkpoints()]
    assert names == ["step_00000010.ckpt", "step_00000012.ckpt"]


def test_a_failure_while_saving_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "run"
    session = start(tiny_settings(steps=STEPS), path)
    save = torch.save

    def save_half(content, file):
        save(content, file)
        if content["global_step"] == 10:
            file.write_bytes(file.read_bytes()[:1000])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", save_half)
    with pytest.raises(OSError, match="No space left"):
        session.train()
    folder = RunFolder(path)
    assert folder.read_checkpoint(folder.last_checkpoint)["global_step"] == 5
    assert sorted(file.name for file in folder.checkpoint_folder.iterdir()) == ["last.ckpt", "step_00000005.ckpt"]


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path, straight):
    path = tmp_path / "run"
    shutil.copytree(straight, path)
    file = path / "config.json"
    file.write_text(file.read_text().replace('"latent": 2', '"latent": 3'))
    with pytest.raises(ValueError, match="the checkpoint's model is not that of the run's configuration"):
        resume(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path, straight):
    class Harm:
        def __reduce__(self):
            return (print, ("harm done",))

    path = tmp_path / "run"
    shutil.copytree(straight, path)
    torch.save({"harm": Harm()}, RunFolder(path).last_checkpoint)
    with pytest.raises(ValueError, match="cannot be read"):
        resume(path)

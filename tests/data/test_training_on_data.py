"""`geco train` takes every kind of data set: several labels, contexts that a model takes none of, files at hand."""

import json

import numpy as np
import pytest
import torch
from formats import small_cifar10, small_mnist, write

from geco_ext.cli import main
from geco_ext.training.batches import BatchOrder, TrainingData

TINY = ["--steps", "2", "--threads", "1", "--accelerator", "cpu"]
TINY += [f"--model-option={option}" for option in ("latent=2", "flows=1", "hidden=16", "channels=4")]


@pytest.fixture(autouse=True)
def same_threads_afterwards():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def train(path, *options):
    return main(["train", *TINY, "--out", str(path), *options])


def configuration(path):
    return json.loads((path / "config.json").read_text())


@pytest.mark.parametrize(
    ("data", "image_shape"),
    [
        ("digits-triplets", [3, 16, 16]),
        ("digits-sum", [1, 16, 16]),
        ("digits-sum-hard", [2, 16, 16]),
        ("digits-rotate", [1, 16, 16]),
        ("color-digits", [3, 16, 16]),
    ],
)
def test_an_unconditional_model_is_trained_without_the_context(tmp_path, data, image_shape):
    assert train(tmp_path / "run", "--data", data) == 0
    assert configuration(tmp_path / "run")["image_shape"] == image_shape
    assert configuration(tmp_path / "run")["context_shape"] is None


def test_a_batch_larger_than_the_data_is_refused_where_it_was_asked_for(tmp_path, capsys):
    assert train(tmp_path / "run", "--data", "micro-digits", "--batch-size", "8") == 2
    assert "batch size must be at most the 7 training examples, got 8" in capsys.readouterr().err
    assert train(tmp_path / "run", "--data", "micro-digits") == 0
    assert "geco: warning: there are 7 training examples: a batch has 7 of them\n" in capsys.readouterr().err
    assert configuration(tmp_path / "run")["settings"]["batch_size"] == 7
    for options in ([], ["--split", "test"]):  # of which there are fewer than pictures usually show
        assert main(["reconstruct", str(tmp_path / "run"), *options]) == 0


@pytest.mark.parametrize("options", [["--constraint", "re=0.3"], ["--objective", "elbo"]])
def test_an_array_with_missing_pixels_trains(tmp_path, options):
    """One example has none at all."""
    array = np.random.default_rng(0).random((24, 16, 16)).astype(np.float32)
    array[:, 2:9, 4:12] = np.nan
    array[2] = np.nan
    np.save(tmp_path / "array.npy", array)
    assert train(tmp_path / "run", "--data", f"npy:{tmp_path}/array.npy", "--batch-size", "8", *options) == 0
    assert 0 < json.loads((tmp_path / "run" / "results.json").read_text())["rmse"] < 1


def test_missing_pixels_beside_a_patch_constraint_are_refused(tmp_path, capsys):
    np.save(tmp_path / "array.npy", np.full((24, 16, 16), [0.5] * 15 + [np.nan]))
    assert (
        train(
            tmp_path / "run", "--data", f"npy:{tmp_path}/array.npy", "--constraint", "pncc=0.9:4", "--batch-size", "8"
        )
        == 2
    )
    assert "weight: got one beside constraint" in capsys.readouterr().err


@pytest.mark.parametrize(("data", "files"), [("mnist-sum", small_mnist), ("cifar10", small_cifar10)])
def test_files_at_hand_are_found_again_from_another_folder(tmp_path, monkeypatch, data, files):
    write(tmp_path / "files", files())
    monkeypatch.chdir(tmp_path)
    assert train("run", "--data", data, "--root", "files", "--batch-size", "50", "--checkpoint-every", "1") == 0
    assert configuration(tmp_path / "run")["settings"]["size"] == 32
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["train", "--resume", "../run", "--steps", "3"]) == 0


def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch, cache, capsys):
    from geco_ext.data import cifar10
    from geco_ext.data.download import RemoteFile

    monkeypatch.setattr(cifar10, "ARCHIVE", RemoteFile("cifar.tar.gz", "md5:00", ("http://127.0.0.1:9/cifar.tar.gz",)))
    assert train(tmp_path / "run", "--data", "cifar10") == 2
    error = capsys.readouterr().err
    assert error.startswith("geco: error: cifar.tar.gz could not be downloaded")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


class Device:
    def __init__(self, kind):
        self.root_device = torch.device(kind)


class Trainer:
    global_step, global_rank, world_size = 3, 0, 1

    def __init__(self, kind):
        self.strategy = Device(kind)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_training_takes_whole_batches_in_the_order_of_the_seed(kind):
    import geco_ext.data

    dataset = geco_ext.data.load("digits-sum")
    data = TrainingData(dataset, batch_size=128, seed=4)
    data.trainer = Trainer(kind)
    loader = data.train_dataloader()
    assert loader.pin_memory == (kind == "cuda")
    if kind == "cpu":
        batch = next(iter(loader))
        expected = dataset[next(iter(BatchOrder(len(dataset), 128, seed=4, first_step=3)))]
        assert batch.keys() == expected.keys()
        assert all(torch.equal(batch[name], expected[name]) for name in batch)

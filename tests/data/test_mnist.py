"""MNIST from files in their true format, at hand and served."""

import gzip
import hashlib

import numpy as np
import pytest
import torch
from formats import idx, small_mnist, write
from loopback import published_at

import geco_ext.data
from geco_ext.data import celeba, cifar10, mnist
from geco_ext.data.download import DownloadError
from geco_ext.data.mnist import read_idx


@pytest.mark.parametrize("place", ["", "MNIST/raw"])
@pytest.mark.parametrize("unpack", [False, True])
def test_mnist_from_files_at_hand(tmp_path, place, unpack):
    files = small_mnist()
    plain = {name.removesuffix(".gz"): gzip.decompress(content) for name, content in files.items()}
    write(tmp_path / place, plain if unpack else files)
    train, test = (geco_ext.data.load("mnist", split, root=tmp_path) for split in ("train", "test"))
    assert (len(train), len(test)) == (200, 50)
    for dataset, part in ((train, "train"), (test, "t10k")):
        values = np.frombuffer(plain[f"{part}-images-idx3-ubyte"][16:], dtype=np.uint8).reshape(-1, 1, 28, 28)
        assert torch.equal(dataset.images, torch.tensor(values).float() / 255)
        assert dataset.labels.tolist() == list(plain[f"{part}-labels-idx1-ubyte"][8:])


def test_mnist_is_downloaded_once_and_then_needs_no_network(loopback, cache, monkeypatch):
    files = published_at(loopback, small_mnist())
    monkeypatch.setattr(mnist, "FILES", files)
    first = geco_ext.data.load("mnist", size=32)
    asked = len(loopback.requests)
    loopback.files.clear()
    again = geco_ext.data.load("mnist", size=32)
    assert asked == len(loopback.requests) == 2
    assert torch.equal(first.images, again.images)
    assert first.image_shape == (1, 32, 32)
    assert (cache / "mnist" / "train-images-idx3-ubyte.gz").is_file()
    with pytest.raises(DownloadError, match=r"t10k-images-idx3-ubyte\.gz could not be downloaded"):
        geco_ext.data.load("mnist", "test")


def test_the_published_checksums_and_addresses_are_well_formed():
    for remote in (*mnist.FILES.values(), cifar10.ARCHIVE, celeba.ARCHIVE):
        algorithm, digest = remote.checksum.split(":")
        assert len(bytes.fromhex(digest)) == hashlib.new(algorithm).digest_size
        assert len(remote.urls) >= 2
        assert all(url.startswith("https://") for url in remote.urls)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda gz: gz[: len(gz) // 2], "is truncated or corrupt"),
        (lambda gz: gz[:200] + bytes([gz[200] ^ 255]) + gz[201:], "is truncated or corrupt"),
        (lambda gz: b"", "begins with nothing, expected 00000803"),
        (lambda gz: b"<html>not found</html>", "begins with 3c68746d, expected 00000803"),
        (lambda gz: gzip.compress(idx(np.zeros(5, np.uint8))), "begins with 00000801, expected 00000803"),
        (lambda gz: gzip.decompress(gz)[:9], "ends within its header"),
        (lambda gz: gzip.decompress(gz)[:-1], "holds 156799 bytes of values, expected 200x28x28"),
        (lambda gz: gzip.decompress(gz) + b"0", "holds more bytes of values, expected 200x28x28"),
        (lambda gz: bytes([0, 0, 8, 3]) + b"\xff" * 12, "speaks of 4294967295x4294967295x4294967295 values"),
        (lambda gz: idx(np.zeros((0, 28, 28), np.uint8)), "holds 0x28x28 values, expected square images"),
        (lambda gz: idx(np.zeros((199, 28, 28), np.uint8)), "holds 199 images, but .* 200 labels"),
    ],
)
def test_a_damaged_mnist_file_is_named_with_what_was_found(tmp_path, change, message):
    files = small_mnist()
    name = "train-images-idx3-ubyte.gz"
    write(tmp_path, files | {name: change(files[name])})
    with pytest.raises(ValueError, match=rf"{tmp_path}/{name}.* {message}|{tmp_path}/{name} {message}"):
        geco_ext.data.load("mnist", root=tmp_path)


def test_labels_that_are_no_digits_are_refused(tmp_path):
    name = "train-labels-idx1-ubyte.gz"
    write(tmp_path, small_mnist() | {name: gzip.compress(idx(np.full(200, 10, np.uint8)))})
    with pytest.raises(ValueError, match=rf"{name} holds a label 10, expected digits"):
        geco_ext.data.load("mnist", root=tmp_path)


def test_an_idx_file_cut_anywhere_is_refused(tmp_path):
    content = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    for end in range(len(content)):
        (tmp_path / "cut").write_bytes(content[:end])
        with pytest.raises(ValueError, match="cut .*fetch it again"):
            read_idx(tmp_path / "cut", 3)


@pytest.mark.parametrize(
    ("name", "missing"),
    [("mnist", "train-images-idx3-ubyte.gz"), ("cifar10", "cifar-10-batches-py/data_batch_1"), ("celeba", "img_align")],
)
def test_files_that_are_not_in_the_root_are_named(tmp_path, name, missing):
    with pytest.raises(FileNotFoundError, match=rf"data '{name}': found none of .*{missing}.* leave out root"):
        geco_ext.data.load(name, root=tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"data '{name}': root .*nowhere is not a folder"):
        geco_ext.data.load(name, root=tmp_path / "nowhere")

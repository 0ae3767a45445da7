"""MNIST, CIFAR-10 and CelebA from files in their true formats, at hand and served."""

import gzip
import hashlib
import os
import pickle
import subprocess
import sys
import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch
from formats import (
    CELEBA_NUMBERS,
    CIFAR_NAMES,
    cifar_archive,
    cifar_batch,
    idx,
    python_2_pickle,
    small_celeba,
    small_cifar10,
    small_mnist,
    write,
)
from PIL import Image

import geco_ext.data
from geco_ext.data import celeba, cifar10, mnist
from geco_ext.data.cifar_pickle import NotABatch, read_batch
from geco_ext.data.download import DownloadError, RemoteFile
from geco_ext.data.idx import read_idx


def published_at(server, files, algorithm="sha256"):
    """The files as the server publishes them."""
    server.files |= files
    digests = {name: f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}" for name, content in files.items()}
    return {name: RemoteFile(name, digests[name], (server.url + name,)) for name in files}


def zipped(files, folder="img_align_celeba"):
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"{folder}/{name}", data)
    return content.getvalue()


# MNIST


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


# CIFAR-10


@pytest.mark.parametrize("place", ["", "cifar-10-batches-py", "archive"])
def test_cifar10_from_files_at_hand(tmp_path, place):
    files = small_cifar10()
    write(tmp_path, {"cifar-10-python.tar.gz": cifar_archive(files)}) if place == "archive" else write(
        tmp_path / place, files
    )
    for split, seeds in (("train", range(5)), ("test", [5])):
        dataset = geco_ext.data.load("cifar10", split, root=tmp_path)
        images = np.concatenate([cifar_batch(seed=seed)[0] for seed in seeds])
        assert torch.equal(dataset.images, torch.from_numpy(images).float() / 255)
        assert dataset.labels.tolist() == [label for seed in seeds for label in cifar_batch(seed=seed)[1]]


def test_cifar10_is_downloaded(loopback, monkeypatch):
    (remote,) = published_at(loopback, {"cifar-10-python.tar.gz": cifar_archive(small_cifar10())}, "md5").values()
    monkeypatch.setattr(cifar10, "ARCHIVE", remote)
    assert len(geco_ext.data.load("cifar10")) == 100


@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_batches_that_python_3_writes_are_read_too(protocol, fortran):
    images, labels, batch = cifar_batch()
    if fortran:
        batch[b"data"] = np.asfortranarray(batch[b"data"])
    read = read_batch(pickle.dumps(batch, protocol=protocol))
    assert (read[0] == images).all()
    assert read[1].tolist() == labels


class Calls:
    """What a pickle of it does when it is loaded."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def program(*lines):
    return b"\x80\x02" + b"".join(lines)


MALICIOUS = {
    "system": lambda path: pickle.dumps(Calls(os.system, f"touch {path}"), protocol=2),
    "stack_global": lambda path: pickle.dumps(Calls(os.system, f"touch {path}"), protocol=4),
    "exec": lambda path: pickle.dumps(Calls(exec, f"open({str(path)!r}, 'w')")),
    "popen": lambda path: pickle.dumps(Calls(subprocess.Popen, ["touch", str(path)])),
    "in the labels": lambda path: pickle.dumps({"data": 0, "labels": [Calls(open, str(path), "w")]}),
    "inst": lambda path: b"(S'touch %s'\nios\nsystem\n." % str(path).encode(),
    "obj": lambda path: program(b"(cos\nsystem\nU", bytes([len(f"touch {path}")]), f"touch {path}".encode(), b"o."),
    "numpy": lambda path: program(b"cnumpy.testing\nrundocs\n(U", bytes([len(str(path))]), str(path).encode(), b"tR."),
    "numpy load": lambda path: program(b"cnumpy\nload\n(U", bytes([len(str(path))]), str(path).encode(), b"tR."),
    "dotted": lambda path: program(b"cnumpy\nndarray.tofile\n(", b"U", bytes([len(str(path))]), str(path).encode(), b"tR."),
    "extension": lambda path: program(b"\x82\x01."),
    "persistent": lambda path: b"Pos.system\n.",
}


@pytest.mark.parametrize("attack", MALICIOUS)
def test_a_malicious_pickle_executes_nothing(tmp_path, attack):
    mark = tmp_path / "executed"
    with pytest.raises(NotABatch, match="cannot be read as a CIFAR-10 batch: .+"):
        read_batch(MALICIOUS[attack](mark))
    assert not mark.exists()


def test_the_file_of_a_malicious_pickle_is_named_with_what_it_asks_for(tmp_path):
    write(tmp_path, small_cifar10() | {"data_batch_3": MALICIOUS["system"](tmp_path / "executed")})
    with pytest.raises(ValueError, match=r"data_batch_3: .* asks for (posix|os)\.system, which no CIFAR-10 batch does"):
        geco_ext.data.load("cifar10", root=tmp_path)
    assert not (tmp_path / "executed").exists()


def test_the_stand_ins_of_one_file_are_not_those_of_the_next():
    # A pickle may set attributes on what it names; that must not change how the next file is read.
    spoiling = program(b"cnumpy\ndtype\n(N}U\x0c__setstate__K\x01stb.")
    with pytest.raises(NotABatch):
        read_batch(spoiling)
    images, _, batch = cifar_batch()
    assert (read_batch(python_2_pickle(batch))[0] == images).all()


def test_a_batch_cut_anywhere_is_refused():
    content = python_2_pickle(cifar_batch(count=2)[2])
    for end in [*range(120), *range(120, len(content), 97)]:
        with pytest.raises(NotABatch):
            read_batch(content[:end])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"labels": None}, "'labels' are not a list of 20"),
        ({b"labels": [0] * 19}, "'labels' are not a list of 20"),
        ({b"labels": [10] * 20}, "'labels' are not all integers from 0 to 9"),
        ({b"data": b"text"}, "'data' is not an array"),
        ({b"data": np.zeros((20, 100), np.uint8)}, r"of shape \[20, 100\], expected bytes of shape \[N, 3072\]"),
        ({b"data": np.zeros(3072, np.uint8)}, "'data' is not an array of two dimensions"),
        ({b"data": np.zeros((0, 3072), np.uint8)}, "holds 0 bytes"),
    ],
)
def test_a_batch_of_another_content_is_refused(change, message):
    with pytest.raises(NotABatch, match=message):
        read_batch(python_2_pickle(cifar_batch()[2] | change))


def test_a_pickle_of_something_else_is_refused():
    with pytest.raises(NotABatch, match="holds a list, expected a dict"):
        read_batch(pickle.dumps([1, 2]))
    with pytest.raises(NotABatch, match="expected bytes of shape"):
        read_batch(pickle.dumps({"data": np.zeros((20, 3072), np.float32), "labels": [0] * 20}, protocol=2))


def test_a_damaged_archive_is_named(tmp_path):
    whole = cifar_archive(small_cifar10())
    path = tmp_path / "cifar-10-python.tar.gz"
    for content in (whole[: len(whole) // 2], b"not an archive", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"cifar-10-python\.tar\.gz is truncated or corrupt: .*fetch it again"):
            geco_ext.data.load("cifar10", root=tmp_path)
    path.write_bytes(cifar_archive({"data_batch_1": small_cifar10()["data_batch_1"]}))
    with pytest.raises(ValueError, match=r"has no cifar-10-batches-py/data_batch_2"):
        geco_ext.data.load("cifar10", root=tmp_path)


def test_a_missing_batch_is_named(tmp_path):
    files = small_cifar10()
    del files[CIFAR_NAMES[3]]
    write(tmp_path, files)
    with pytest.raises(FileNotFoundError, match="data_batch_4"):
        geco_ext.data.load("cifar10", root=tmp_path)


# CelebA


def assert_squares(images, files, size):
    """Within rounding to 256 levels, PyTorch's resize of the centre, 20 pixels off above and below."""
    arrays = [np.asarray(Image.open(BytesIO(content)))[20:198] for content in files.values()]
    squares = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).double() / 255
    expected = torch.nn.functional.interpolate(squares, size=(size, size), mode="bilinear", antialias=True)
    torch.testing.assert_close(images.double(), expected, rtol=0, atol=1.01 / 255)


def of_numbers(files, *numbers):
    return {f"{number:06d}.jpg": files[f"{number:06d}.jpg"] for number in numbers}


@pytest.mark.parametrize("form", ["img_align_celeba", "celeba/img_align_celeba", "", "zip"])
def test_celeba_is_cut_resized_and_mapped(tmp_path, cache, form):
    files = small_celeba()
    if form == "zip":
        write(tmp_path / "at hand", {"img_align_celeba.zip": zipped(files)})
    else:
        write(tmp_path / "at hand" / form, files)
    train, test = (geco_ext.data.load("celeba", split, root=tmp_path / "at hand", size=64) for split in ("train", "test"))
    assert_squares(train.images, of_numbers(files, 1, 2, 3, 162770), 64)
    assert_squares(test.images, of_numbers(files, 182638, 202599), 64)
    (array,) = (cache / "celeba").glob("train-64-*.npy")
    assert np.load(array, mmap_mode="r").shape == (4, 3, 64, 64)


def test_the_array_is_made_once_and_again_when_the_images_change(tmp_path, cache):
    files = small_celeba()
    write(tmp_path / "images", files)

    def arrays():
        geco_ext.data.load("celeba", root=tmp_path / "images", size=8)
        return {path: path.stat().st_mtime_ns for path in (cache / "celeba").glob("*.npy")}

    first = arrays()
    assert len(first) == 1
    assert arrays() == first
    write(tmp_path / "images", {"000004.jpg": files["000001.jpg"]})
    assert len(arrays()) == 2


def test_the_native_size_is_the_centre_square(tmp_path, cache):
    files = small_celeba()
    dataset = geco_ext.data.load("celeba", root=write(tmp_path / "images", files))
    assert dataset.image_shape == (3, 178, 178)
    assert_squares(dataset.images, of_numbers(files, 1, 2, 3, 162770), 178)
    with pytest.raises(ValueError, match="size must be at most 178, .* of 'celeba', got 179"):
        geco_ext.data.load("celeba", root=tmp_path / "images", size=179)


def test_a_partition_file_decides_where_there_is_one(tmp_path, cache):
    root = write(tmp_path / "celeba", small_celeba())
    lines = [f"{number:06d}.jpg {index % 3}" for index, number in enumerate(CELEBA_NUMBERS)]
    (root / "list_eval_partition.txt").write_text("\n".join(lines))
    assert len(geco_ext.data.load("celeba", root=root, size=8)) == 3
    assert len(geco_ext.data.load("celeba", "test", root=root, size=8)) == 2
    (root / "list_eval_partition.txt").write_text("no partition")
    with pytest.raises(ValueError, match=r"list_eval_partition\.txt is no partition of CelebA"):
        geco_ext.data.load("celeba", root=root, size=8)


def test_celeba_is_downloaded_and_the_array_outlives_the_archive(loopback, cache, monkeypatch):
    (remote,) = published_at(loopback, {"img_align_celeba.zip": zipped(small_celeba())}, "md5").values()
    monkeypatch.setattr(celeba, "ARCHIVE", remote)
    first = geco_ext.data.load("celeba", size=16).images
    (cache / "celeba" / "img_align_celeba.zip").unlink()
    assert torch.equal(geco_ext.data.load("celeba", size=16).images, first)
    assert len(loopback.requests) == 1


def test_an_image_that_cannot_be_read_leaves_no_array(tmp_path, cache):
    files = small_celeba()
    for damaged in (b"not an image", files["000002.jpg"][:2000]):
        root = write(tmp_path / "images", files | {"000002.jpg": damaged})
        with pytest.raises(ValueError, match=r"000002\.jpg in .* cannot be read as an image"):
            geco_ext.data.load("celeba", root=root, size=8)
        assert [path for path in (cache / "celeba").iterdir() if path.suffix != ".lock"] == []


def test_damaged_archives_arrays_and_empty_splits_are_named(tmp_path, cache):
    files = small_celeba()
    content = zipped(files)
    for damaged, message in ((content[:-30], "truncated or corrupt"), (content[:100] + b"?" + content[101:], "corrupt")):
        root = write(tmp_path / "zip", {"img_align_celeba.zip": damaged})
        with pytest.raises(ValueError, match=rf"img_align_celeba\.zip.* {message}"):
            geco_ext.data.load("celeba", root=root, size=8)
    root = write(tmp_path / "few", {"000001.jpg": files["000001.jpg"]})
    with pytest.raises(ValueError, match=r"none of the 1 images in .* is for test"):
        geco_ext.data.load("celeba", "test", root=root, size=8)
    geco_ext.data.load("celeba", root=root, size=8)
    (array,) = (cache / "celeba").glob("train-8-*.npy")
    array.write_bytes(array.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"\.npy is truncated or corrupt: .*delete it"):
        geco_ext.data.load("celeba", root=root, size=8)


def test_an_empty_folder_of_images_is_named(tmp_path, cache):
    (tmp_path / "img_align_celeba").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no images \(000001\.jpg\.\.\.\) in .*img_align_celeba"):
        geco_ext.data.load("celeba", root=tmp_path)


LOAD = """
import sys
import geco_ext.data
print(float(geco_ext.data.load("celeba", root=sys.argv[1], size=32).images.sum()))
"""


def test_two_processes_may_make_the_array_at_once(tmp_path, cache):
    root = write(tmp_path / "images", small_celeba())
    commands = [[sys.executable, "-c", LOAD, str(root)]] * 2
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    sums = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert sums == {str(float(geco_ext.data.load("celeba", root=root, size=32).images.sum()))}
    assert len(list((cache / "celeba").glob("*.npy"))) == 1

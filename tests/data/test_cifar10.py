"""CIFAR-10 from files in their true format, at hand and served; malicious ones too."""

import os
import pickle
import subprocess
import types

import numpy as np
import pytest
import torch
from formats import CIFAR_NAMES, cifar_archive, cifar_batch, python_2_pickle, small_cifar10, write
from loopback import published_at

import geco_ext.data
from geco_ext.data import cifar10
from geco_ext.data.cifar10 import NotABatch, read_batch


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
    "dotted": lambda path: program(
        b"cnumpy\nndarray.tofile\n(", b"U", bytes([len(str(path))]), str(path).encode(), b"tR."
    ),
    "extension": lambda path: program(b"\x82\x01."),
    "memory": lambda path: program(b"]r\xff\xff\xff\x7f."),
    "memory, as text": lambda path: b"(lp2000000000\n.",
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


@pytest.mark.parametrize("shape", [(10**5000, 3072), (-(10**5000), 3072), (20, 10**5000), (20.0, 3072), ("20", 3072)])
def test_shapes_that_a_program_made_up_are_refused(shape):
    dtype = types.SimpleNamespace(arguments=("u1",))
    noted = types.SimpleNamespace(state=(1, shape, dtype, False, bytes(20 * 3072)))
    with pytest.raises(NotABatch, match="'data' is not an array of two dimensions"):
        cifar10._images(noted)


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

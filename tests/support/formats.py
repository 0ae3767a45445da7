"""Files in the true formats of the published data sets, written here byte by byte."""

import gzip
import io
import struct
import tarfile

import numpy as np
from PIL import Image


def idx(values):
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def small_mnist(train=200, test=50, side=28):
    """File name to content; labels run through the digits, so that none is missing."""
    random = np.random.RandomState(0)
    files = {}
    for part, count in (("train", train), ("t10k", test)):
        images = random.randint(256, size=(count, side, side)).astype(np.uint8)
        labels = (np.arange(count) * 7 % 10).astype(np.uint8)
        files[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(idx(images))
        files[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(idx(labels))
    return files


def python_2_pickle(value):
    """The program that Python 2's cPickle writes in protocol 2: strings of bytes, arrays by numpy.core.multiarray."""
    return b"\x80\x02" + _program(value) + b"."


def _program(value):
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, bytes):
        short = len(value) < 256
        return (b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<I", len(value))) + value
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_program, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(_program, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_program(each) for item in value.items() for each in item) + b"u"
    if isinstance(value, np.ndarray):
        dtype = b"cnumpy\ndtype\n" + _program((b"u1", 0, 1)) + b"R" + _program((3, b"|", *[None] * 3, -1, -1, 0)) + b"b"
        start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _program((0,)) + _program(b"b") + b"tR"
        state = _program(1) + _program(value.shape) + dtype + _program(False) + _program(value.tobytes())
        return start + b"(" + state + b"tb"
    raise TypeError(type(value))


def cifar_batch(count=20, seed=0):
    """Images, labels and the dict that a batch file holds."""
    random = np.random.RandomState(seed)
    images = random.randint(256, size=(count, 3072)).astype(np.uint8)
    labels = random.randint(10, size=count).tolist()
    batch = {
        b"batch_label": b"training batch 1 of 5",
        b"labels": labels,
        b"data": images,
        b"filenames": [b"leptodactylus_pentadactylus_s_000004.png"] * count,
    }
    return images.reshape(count, 3, 32, 32), labels, batch


CIFAR_NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def small_cifar10():
    return {name: python_2_pickle(cifar_batch(seed=seed)[2]) for seed, name in enumerate(CIFAR_NAMES)}


def cifar_archive(files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


CELEBA_NUMBERS = [1, 2, 3, 162770, 162771, 182637, 182638, 202599]


def small_celeba(shape=(218, 178)):
    """File name to JPEG: the first four train, the last two test."""
    files = {}
    for number in CELEBA_NUMBERS:
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        image = np.stack([rows % 256, columns % 256, np.full(shape, number % 251)], axis=2).astype(np.uint8)
        content = io.BytesIO()
        Image.fromarray(image).save(content, format="jpeg", quality=95)
        files[f"{number:06d}.jpg"] = content.getvalue()
    return files


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder

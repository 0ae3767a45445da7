"""CelebA from images in a folder, in the archive, and served."""

import subprocess
import sys
import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch
from formats import CELEBA_NUMBERS, small_celeba, write
from loopback import published_at
from PIL import Image

import geco_ext.data
from geco_ext.data import celeba


def zipped(files, folder="img_align_celeba"):
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"{folder}/{name}", data)
    return content.getvalue()


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
    train, test = (
        geco_ext.data.load("celeba", split, root=tmp_path / "at hand", size=64) for split in ("train", "test")
    )
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


def test_an_array_in_a_read_only_cache_is_used(read_only, monkeypatch):
    monkeypatch.setenv("GECO_EXT_DATA", str(read_only.folder / "cache"))
    root = write(read_only.folder / "images", small_celeba())
    first = geco_ext.data.load("celeba", root=root, size=8)
    read_only()
    assert torch.equal(geco_ext.data.load("celeba", root=root, size=8).images, first.images)
    with pytest.raises(OSError, match=r"celeba cannot be written \(Permission denied\).*GECO_EXT_DATA"):
        geco_ext.data.load("celeba", root=root, size=9)


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
    for damaged, message in (
        (content[:-30], "truncated or corrupt"),
        (content[:100] + b"?" + content[101:], "cannot be read: Bad CRC"),
        (content.replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"), "cannot be read: .*encrypted"),
    ):
        root = write(tmp_path / "zip", {"img_align_celeba.zip": damaged})
        with pytest.raises(ValueError, match=rf"img_align_celeba\.zip.* {message}"):
            geco_ext.data.load("celeba", root=root, size=8)
    root = write(tmp_path / "few", {"000001.jpg": files["000001.jpg"]})
    with pytest.raises(ValueError, match=r"none of the 1 images in .* is for test; expected 000001\.jpg to"):
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
    sums = {process.communicate(timeout=300)[0].strip() for process in processes}
    assert sums == {str(float(geco_ext.data.load("celeba", root=root, size=32).images.sum()))}
    assert len(list((cache / "celeba").glob("*.npy"))) == 1

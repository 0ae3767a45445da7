import io

import numpy as np
import pytest
from formats import small_celeba, small_cifar10, small_mnist, write
from PIL import Image

import geco_ext.data
from geco_ext.cli import main
from geco_ext.data.contact_sheet import contact_sheet

EMBEDDED = [name for name in geco_ext.data.known_names() if "digits" in name or name == "patches"]


def one_line(captured):
    """The single line on stderr of a command that failed."""
    assert captured.out == ""
    assert captured.err.startswith("geco: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def shown(sheet, picture):
    """Whether a picture [H, W, 3] stands somewhere in the sheet."""
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(sheet.convert("RGB")), picture.shape[:2], axis=(0, 1))
    return bool((windows == picture.transpose(2, 0, 1)).all(axis=(2, 3, 4)).any())


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_contact_sheet_of_every_embedded_set(tmp_path, capsys, name):
    file = tmp_path / "sheet.png"
    assert main(["data", name, "--out", str(file)]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{name}, train: {len(geco_ext.data.load(name))} examples, images ")
    assert line.endswith(f"contact sheet in {file}\n")
    with Image.open(io.BytesIO(file.read_bytes())) as sheet:
        assert sheet.format == "PNG"
        assert len(np.unique(np.asarray(sheet))) > 50


def test_published_sets_from_files_at_hand(tmp_path, cache, capsys):
    for name, files, size in (
        ("mnist", small_mnist(), "1x32x32"),
        ("mnist-rotate", small_mnist(), "1x32x32, contexts 2x32x32"),
        ("cifar10", small_cifar10(), "3x32x32"),
        ("celeba", small_celeba(), "3x64x64"),
    ):
        root = write(tmp_path / name, files)
        out = str(tmp_path / "sheet.png")
        assert main(["data", name, "--root", str(root), "--split", "test", "--out", out]) == 0
        assert f"{name}, test: {len(geco_ext.data.load(name, 'test', root))} examples, images {size};" in (
            capsys.readouterr().out
        )


def test_the_sheet_shows_images_and_contexts():
    dataset = geco_ext.data.load("digits-sum", size=48)
    sheet = contact_sheet(dataset, "title")
    item = dataset[0]
    for image in (*item["context"], *item["x"]):
        levels = (image * 255).round().byte().numpy()
        assert shown(sheet.crop((0, 0, 300, 120)), levels[:, :, None].repeat(3, axis=2))


def test_the_picture_is_named_after_the_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("own.npy", np.zeros((20, 8, 8), np.uint8))
    assert main(["data", "npy:own.npy"]) == 0
    assert (tmp_path / "npy-own.npy.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nothing"], "unknown data set 'nothing'; known are digits, patches, mnist"),
        (["color-cifar10"], "unknown data set 'color-cifar10' (did you mean 'cifar10'?); known are"),
        (["digits", "--split", "validation"], "split must be 'train' or 'test'"),
        (["digits", "--size", "0"], "size must be a positive integer"),
        (["digits", "--seed", "-1"], "seed must be an integer >= 0"),
        (["digits", "--out", "sheet.jpg"], "out must end in .png, got sheet.jpg"),
        (["digits", "--out", "/nowhere/sheet.png"], "out: /nowhere is not a folder"),
        (["mnist", "--root", "/nowhere"], "root /nowhere is not a folder"),
        (["folder:/nowhere"], "expected a folder of images"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert main(["data", *options]) == 2
    assert message in one_line(capsys.readouterr())
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_line_says_what_to_do(monkeypatch, cache, capsys):
    from geco_ext.data import cifar10
    from geco_ext.data.download import RemoteFile

    monkeypatch.setattr(cifar10, "ARCHIVE", RemoteFile("cifar.tar.gz", "md5:00", ("http://127.0.0.1:9/cifar.tar.gz",)))
    assert main(["data", "cifar10"]) == 2
    error = one_line(capsys.readouterr())
    assert "cifar.tar.gz could not be downloaded" in error
    assert "root" in error

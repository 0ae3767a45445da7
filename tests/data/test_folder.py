"""Photographs as they come: of different sizes, with a file among them that cannot be read."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import geco_ext.data
from geco_ext.cli import main
from geco_ext.data.folder import FolderWarning


def photograph(file, height, width, orientation=1):
    """Of noise; with the orientation a viewer gives it."""
    file.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(height + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, exif=exif)


@pytest.fixture
def photographs(tmp_path):
    """Twenty of which the tenth, the first for testing, alone has another size."""
    for index in range(20):
        photograph(tmp_path / "photographs" / f"{index:02d}.jpg", *((90, 70) if index == 9 else (80, 100)))
    return tmp_path / "photographs"


def said(name, *arguments, **options):
    """The data set, and what the warnings say."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = geco_ext.data.load(name, *arguments, **options)
    assert {each.category for each in caught} <= {FolderWarning}
    assert {each.filename for each in caught} <= {__file__}
    return dataset, [str(each.message) for each in caught]


@pytest.mark.parametrize("split", ["train", "test"])
def test_different_sizes_become_one_in_both_splits(photographs, split):
    dataset, (message,) = said(f"folder:{photographs}", split)
    assert dataset.image_shape == (3, 64, 64)
    assert "images of 2 sizes, 90x70 to 80x100 pixels: the centre square of each is resized to 64x64" in message
    asked, nothing = said(f"folder:{photographs}", split, size=64)
    assert torch.equal(dataset.images, asked.images)
    assert nothing == []
    with pytest.warns(FolderWarning, match="resized to 64x64"):
        assert geco_ext.data.command_size(f"folder:{photographs}") == 64


def test_one_size_is_kept_without_a_word(photographs):
    """Also where a camera was held upright: what is seen counts."""
    photograph(photographs / "09.jpg", 100, 80, orientation=6)
    dataset, nothing = said(f"folder:{photographs}")
    assert (dataset.image_shape, nothing) == ((3, 80, 100), [])
    assert geco_ext.data.command_size(f"folder:{photographs}") is None
    assert geco_ext.data.command_size(f"folder:{photographs}/nowhere") is None


def test_what_cannot_be_read_is_left_out_and_counted(photographs):
    for index in range(20):
        photograph(photographs / ("a" if index < 7 else "b") / f"{index:02d}.jpg", 8, 8)
        (photographs / f"{index:02d}.jpg").unlink()
    name = f"folder:{photographs}"
    whole, nothing = said(name)
    assert nothing == []
    (photographs / "a" / "03.jpg").write_bytes(b"no image")
    one_less, (message,) = said(name)
    assert message.startswith(f"{name}: 1 of 18 images (train split) left out: {photographs}/a/03.jpg cannot be read")
    cut = photographs / "b" / "11.jpg"  # the eleventh for training: the tenth is for testing
    cut.write_bytes(cut.read_bytes()[:-300])
    two_less, (message,) = said(name)
    assert message.startswith(f"{name}: 2 of 18 images (train split) left out: {photographs}/a/03.jpg cannot be read")
    kept = [index for index in range(18) if index != 3]
    assert torch.equal(one_less.images, whole.images[kept])
    assert one_less.labels.tolist() == whole.labels[kept].tolist()
    kept.remove(10)
    assert torch.equal(two_less.images, whole.images[kept])
    assert said(name, "test")[1] == []
    with pytest.raises(ValueError, match=r"03\.jpg cannot be read as an image"):
        geco_ext.data.load(name, strict=True)


def test_an_alpha_channel_that_is_dropped_is_counted(photographs):
    """Where something is transparent; a colour that stands for it is one, too."""
    photograph(photographs / "09.jpg", 80, 100)
    clear = Image.new("RGBA", (100, 80), (255, 0, 0, 255))
    clear.save(photographs / "opaque.png")
    clear.putpixel((3, 3), (0, 255, 0, 0))
    clear.save(photographs / "clear.png")
    grey = Image.new("L", (100, 80), 7)
    grey.save(photographs / "colour.png", transparency=7)
    dataset, (message,) = said(f"folder:{photographs}")
    assert message == (
        f"folder:{photographs}: 2 of 21 images (train split) have transparent parts: the alpha channel is dropped, "
        "the colours stay"
    )
    taken = dataset.images[dataset.names.index("clear.png")]
    assert taken[:, 3, 3].tolist() == [0, 1, 0]
    assert taken[:, 0, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize("command", [["data", "--help"], ["train", "--help"]])
def test_the_help_says_what_happens_to_images(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    assert main(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for what in ("centre square", "EXIF", "an alpha channel is dropped", "grey where all are"):
        assert what in shown


def test_a_folder_of_photographs_trains_and_says_each_thing_once(photographs, tmp_path, capsys):
    (photographs / "03.jpg").write_bytes(b"no image")
    options = ["train", "--data", f"folder:{photographs}", "--steps", "1", "--batch-size", "4", "--accelerator", "cpu"]
    options += [f"--model-option={option}" for option in ("latent=2", "flows=1", "hidden=16", "channels=4")]
    threads = torch.get_num_threads()
    assert main([*options, "--strict", "--out", str(tmp_path / "strict")]) == 2
    assert "geco: error: " + f"{photographs}/03.jpg cannot be read as an image" in capsys.readouterr().err
    assert not (tmp_path / "strict").exists()
    assert main([*options, "--threads", "1", "--out", str(tmp_path / "run")]) == 0
    torch.set_num_threads(threads)
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("geco: warning: ")]
    assert len(warned) == len(set(warned)) >= 2
    assert "resized to 64x64" in warned[0]
    assert "1 of 18 images (train split) left out" in warned[1]
    config = geco_ext.load_run(tmp_path / "run").config
    assert (config.size, config.strict) == (64, False)
    assert main(["data", f"folder:{photographs}", "--strict", "--out", str(tmp_path / "sheet.png")]) == 2
    (photographs / "03.jpg").unlink()  # the tenth then is another one
    (photographs / "10.jpg").write_bytes(b"no image, among those held out")
    assert main([*options, "--strict", "--out", str(tmp_path / "strict")]) == 2


def test_other_processes_of_a_command_say_nothing(photographs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert main(["data", f"folder:{photographs}", "--out", str(tmp_path / "sheet.png")]) == 0
    assert capsys.readouterr().err == ""

import shutil

import matplotlib.image
import pytest
import torch
from matplotlib.figure import Figure
from tiny_runs import one_line, tiny_settings
from torch import nn

import geco_ext
from geco_ext.cli import main
from geco_ext.data import ImageDataset
from geco_ext.data.images import ImageSubset
from geco_ext.models import VariationalOutput
from geco_ext.training import pictures
from geco_ext.training.models import MODELS, ModelEntry
from geco_ext.training.pictures import (
    classes_of,
    draw_run_reconstructions,
    draw_run_samples,
    draw_trajectory,
    plain_number,
    title_of,
)
from geco_ext.training.run import Run
from geco_ext.training.session import start
from geco_ext.training.tiles import (
    CAPTION_HEIGHT,
    COLUMNS,
    NAME_WIDTH,
    SMALLEST_TILE,
    TITLE_HEIGHT,
    draw_stacked,
)

TILE = SMALLEST_TILE + 2  # an image of 8 pixels is enlarged to the smallest tile and has a frame of one pixel


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run"
    start(tiny_settings(steps=3), path).train()
    return path


def grid(file, rows_of_a_group=None):
    """The tiles of a run's picture, [rows, columns, tile, tile, 3]; of one with captions for each group of rows."""
    pixels = torch.tensor(matplotlib.image.imread(file))[TITLE_HEIGHT:, NAME_WIDTH:, :3]
    if rows_of_a_group is not None:
        groups = pixels.split(CAPTION_HEIGHT + rows_of_a_group * TILE)
        pixels = torch.cat([group[CAPTION_HEIGHT:] for group in groups])
    return pixels.unfold(0, TILE, TILE).unfold(1, TILE, TILE).permute(0, 1, 3, 4, 2)


def texts(monkeypatch, draw):
    """What is written on the pictures that are drawn, with the places."""
    written = []
    monkeypatch.setattr(Figure, "text", lambda figure, x, y, text, **named: written.append((x, y, text)))
    draw()
    return written


def assert_shows(tile, image):
    """A tile shows a grey image [1, 8, 8]."""
    expected = image[0].clamp(0, 1).repeat_interleave(6, 0).repeat_interleave(6, 1)
    torch.testing.assert_close(tile[1:-1, 1:-1], expected[..., None].expand(-1, -1, 3), rtol=0, atol=1 / 255)


def test_samples_of_a_seed(run, tmp_path, capsys):
    file = tmp_path / "new" / "samples.png"
    assert main(["sample", str(run), "-n", "20", "--seed", "3", "--out", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    tiles = grid(file)
    assert tiles.shape[:2] == (2, COLUMNS)
    torch.manual_seed(3)
    samples = geco_ext.load_run(run).model.sample(20)
    assert_shows(tiles[0, 5], samples[5])
    assert_shows(tiles[1, 3], samples[19])
    assert (tiles[1, 4:] == 1).all()


def test_reconstructions_stand_below_the_data(run, tmp_path):
    file = tmp_path / "reconstructions.png"
    assert main(["reconstruct", str(run), "-n", "18", "--split", "test", "--seed", "1", "--out", str(file)]) == 0
    tiles = grid(file, rows_of_a_group=2)
    assert tiles.shape[:2] == (4, COLUMNS)
    x = geco_ext.data.load("digits", "test", size=8).images[:18]
    torch.manual_seed(1)
    reconstructions = geco_ext.load_run(run).model.reconstruct(x)
    for index in (0, 15, 16, 17):
        row, column = divmod(index, COLUMNS)
        assert_shows(tiles[2 * row, column], x[index])
        assert_shows(tiles[2 * row + 1, column], reconstructions[index])


def test_without_a_name_the_picture_goes_to_the_run_and_a_checkpoint_will_do(run, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(run, path)
    assert main(["sample", str(path / "checkpoints" / "last.ckpt"), "-n", "1"]) == 0
    assert main(["reconstruct", str(path), "-n", "1", "--split", "test", "--seed", "4"]) == 0
    assert (path / "samples-0.png").is_file()
    assert (path / "reconstructions-test-4.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "{tmp}"], "no run in"),
        (["reconstruct", "{tmp}/nope.ckpt"], "no run in"),
        (["sample", "{run}", "--out", "picture.jpg"], "out must be a file name ending in .png, got picture.jpg"),
        (["sample", "{run}", "-n", "0"], "Invalid value for '-n'"),
        (["sample", "{run}", "--split", "all"], "split must be 'train' or 'test', got 'all'"),
        (["reconstruct", "{run}", "--split", "all"], "split must be 'train' or 'test', got 'all'"),
        (["reconstruct", "{run}", "-n", "2000"], "n must be at most the 1500 examples of 'digits' (train), got 2000"),
        (["sample", "{run}", "-n", "30000"], "at most 65535 a side can be drawn"),
        (["sample", "{run}", "--out", "{run}/config.json/picture.png"], "picture.png cannot be written"),
    ],
)
def test_wrong_input_is_one_line(run, tmp_path, capsys, arguments, message):
    assert main([argument.format(run=run, tmp=tmp_path) for argument in arguments]) == 2
    assert message in one_line(capsys.readouterr())
    assert not list(tmp_path.iterdir())


class Growing(nn.Module):
    """A conditional model whose reconstruction comes to x in ten steps."""

    context_shape = (1, 8, 8)

    def forward(self, x, context=None):
        return VariationalOutput(x, torch.zeros(len(x)), x.flatten(1))

    def sample(self, n, context=None, generator=None):
        return context[:, :1] / 2

    def progress(self, x, context=None):
        assert context is not None
        return torch.stack([x * step / 10 for step in range(1, 11)])


@pytest.fixture
def growing(monkeypatch):
    data = ImageDataset(torch.rand(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64), torch.rand(5, 1, 8, 8))
    monkeypatch.setitem(MODELS, "growing", ModelEntry(Growing, takes_context=True))
    monkeypatch.setattr(pictures.geco_ext.data, "load", lambda *_, **__: data)
    config = tiny_settings(model="growing", model_options={})
    criterion = geco_ext.GECOLoss([geco_ext.ReconstructionError(0.1)])
    return Run(Growing(), criterion, config, 1, takes_context=True), data


def test_samples_of_a_conditional_model_stand_below_their_contexts(growing, tmp_path):
    run, data = growing
    draw_run_samples(run, 3, 0, "train", tmp_path / "picture.png")
    tiles = grid(tmp_path / "picture.png")
    assert tiles.shape[:2] == (2, 3)
    assert_shows(tiles[0, 2], data.contexts[2])
    assert_shows(tiles[1, 2], data.contexts[2] / 2)


def test_growth_is_shown_in_few_rows_that_end_with_the_reconstruction(growing, tmp_path):
    run, data = growing
    draw_run_reconstructions(run, 4, 0, "train", tmp_path / "picture.png")
    tiles = grid(tmp_path / "picture.png")
    assert tiles.shape[:2] == (2 + pictures.GROWTH_ROWS, 4)
    assert_shows(tiles[0, 1], data.contexts[1])
    assert_shows(tiles[1, 1], data.images[1])
    assert_shows(tiles[2, 1], data.images[1] / 10)
    assert_shows(tiles[-1, 1], data.images[1])
    brightness = tiles[2:, 1].mean((1, 2, 3))
    assert (brightness.diff() > 0).all()


def test_channels_that_are_no_colours_stand_side_by_side(tmp_path):
    two, one = torch.rand(3, 2, 8, 8), torch.rand(3, 1, 8, 8)
    draw_stacked([two, one], tmp_path / "picture.png")
    pixels = torch.tensor(matplotlib.image.imread(tmp_path / "picture.png"))[..., :3]
    width = 2 * SMALLEST_TILE + 2
    assert pixels.shape == (2 * TILE, 3 * width, 3)
    for index in range(3):
        first = index * width
        for channel in range(2):
            left = first + channel * SMALLEST_TILE
            assert_shows(pixels[:TILE, left : left + TILE], two[index, channel : channel + 1])
        assert_shows(pixels[TILE:, first : first + TILE], one[index])
        assert (pixels[TILE:, first + TILE : first + width] == 1).all()


def test_three_channels_are_colours(tmp_path):
    image = torch.rand(1, 3, 8, 8)
    draw_stacked([image], tmp_path / "picture.png")
    tile = torch.tensor(matplotlib.image.imread(tmp_path / "picture.png"))[..., :3]
    expected = image[0].repeat_interleave(6, 1).repeat_interleave(6, 2).permute(1, 2, 0)
    torch.testing.assert_close(tile[1:-1, 1:-1], expected, rtol=0, atol=1 / 255)


def test_a_picture_says_what_it_shows(run, tmp_path, monkeypatch):
    arguments = ["reconstruct", str(run), "-n", "18", "--out", str(tmp_path / "picture.png")]
    written = texts(monkeypatch, lambda: main(arguments))
    assert written[0][2] == "run: nvp on digits, train"
    rows = [text for _, _, text in written if not text.isdigit()][1:]
    assert rows == ["data", "reconstruction", "data", "reconstruction"]
    labels = geco_ext.data.load("digits").labels[:18].tolist()
    assert [int(text) for _, _, text in written if text.isdigit()] == labels
    written = texts(monkeypatch, lambda: main(["sample", str(run), "-n", "3", "--out", str(tmp_path / "picture.png")]))
    assert [text for _, _, text in written] == ["run: nvp on digits", "sample"]


def test_rows_of_a_growing_reconstruction_are_named(growing, tmp_path, monkeypatch):
    run, _ = growing
    written = texts(monkeypatch, lambda: draw_run_reconstructions(run, 4, 0, "train", tmp_path / "picture.png"))
    names = [text for _, _, text in written]
    assert names[:4] == ["growing on digits, train", "context", "data", "step 1 of 10"]
    assert names[-1] == "reconstruction"


def test_classes_have_the_names_of_the_data():
    images = torch.rand(4, 1, 8, 8)
    named = ImageDataset(images, torch.tensor([1, 0, 1, 2]), class_names=("cat", "dog"))
    assert classes_of(named, 4) == ["dog", "cat", "dog", "2"]
    assert ImageSubset(named, torch.tensor([1])).class_name(0) == "cat"
    assert classes_of(ImageDataset(images, torch.zeros(4, dtype=torch.int64)), 4) is None
    assert classes_of(ImageDataset(images, torch.arange(12).view(4, 3)), 1) == ["0, 1, 2"]


def test_a_title_says_run_model_and_data(tmp_path):
    settings = tiny_settings(model="/code/mine.py:Mine(latent=3)", data="npy:/data/images.npy")
    assert title_of(tmp_path / "x", settings) == "x: Mine on npy:images.npy"
    assert title_of(None, tiny_settings()) == "nvp on digits"


def test_ticks_are_plain_numbers(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, file: saved.append(figure))
    history = {"step": [1.0, 2000.0], "rmse": [0.3, 0.09], "kl": [0.0, 20.0]}
    history |= {"multiplier/re": [3364.0, 25600.0], "moving_average/re": [0.1, 0.0]}
    draw_trajectory(history, {"re": 0.1}, tmp_path / "trajectory.png", "demo: nvp on digits")
    (figure,) = saved
    figure.canvas.draw()
    assert figure.get_suptitle() == "demo: nvp on digits"
    labels = [tick.get_text() for axes in figure.axes for tick in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    labels += [tick.get_text() for axes in figure.axes for tick in axes.get_yticklabels(minor=True)]
    assert {"0.1", "0.2", "10000"} <= set(labels)
    assert not any("$" in label or "e" in label for label in labels)
    assert [plain_number(value) for value in (0.05, 25600.0, 3e5, 1e-6)] == ["0.05", "25600", "300000", "1e-06"]

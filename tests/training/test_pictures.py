import shutil

import matplotlib.image
import pytest
import torch
from tiny_runs import one_line, tiny_settings
from torch import nn

import geco_ext
from geco_ext.cli import main
from geco_ext.data import ImageDataset
from geco_ext.models import VariationalOutput
from geco_ext.training import pictures
from geco_ext.training.models import MODELS, ModelEntry
from geco_ext.training.pictures import COLUMNS, SMALLEST_TILE, draw_run_reconstructions, draw_run_samples, draw_stacked
from geco_ext.training.run import Run
from geco_ext.training.session import start

TILE = SMALLEST_TILE + 2  # an image of 8 pixels is enlarged to the smallest tile and has a frame of one pixel


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run"
    start(tiny_settings(steps=3), path).train()
    return path


def grid(file):
    """The tiles of a picture, [rows, columns, tile, tile, 3]."""
    pixels = torch.tensor(matplotlib.image.imread(file))[..., :3]
    return pixels.unfold(0, TILE, TILE).unfold(1, TILE, TILE).permute(0, 1, 3, 4, 2)


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
    tiles = grid(file)
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
    monkeypatch.setattr(pictures.geco_ext.data, "load", lambda *arguments: data)
    config = tiny_settings(model="growing", model_options={})
    return Run(Growing(), geco_ext.GECOLoss([geco_ext.ReconstructionError(0.1)]), config, 1), data


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
    tile = grid(tmp_path / "picture.png")[0, 0]
    expected = image[0].repeat_interleave(6, 1).repeat_interleave(6, 2).permute(1, 2, 0)
    torch.testing.assert_close(tile[1:-1, 1:-1], expected, rtol=0, atol=1 / 255)

import matplotlib.image
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import one_line, tiny_settings

import geco_ext
from geco_ext.cli import main
from geco_ext.models import NVPVAE
from geco_ext.training import latents
from geco_ext.training.session import start
from geco_ext.training.tiles import NAME_WIDTH, SMALLEST_TILE, TITLE_HEIGHT

TILE = SMALLEST_TILE + 2
RUNS = {
    "nvp": {},
    "convdraw": {
        "model": "convdraw",
        "data": "digits-sum",
        "model_options": {"steps": 2, "hidden": 4, "latent": 1},
        "batch_size": 50,
    },
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each model; that of ConvDraw is conditional."""
    folder = tmp_path_factory.mktemp("runs")
    for name, settings in RUNS.items():
        start(tiny_settings(steps=1, **settings), folder / name).train()
    return folder


@pytest.fixture(params=RUNS)
def run(runs, request):
    return runs / request.param


def inputs_of(run, split, indices=slice(None)):
    """The trained run, and what its model takes of its data."""
    trained = geco_ext.load_run(run)
    config = trained.config
    batch = geco_ext.data.load(config.data, split, size=config.size)[indices]
    names = ["x"] if trained.model.context_shape is None else ["x", "context"]
    return trained.model, [batch[name] for name in names], batch["label"]


def test_latents_of_a_split_with_labels_and_indices(run, tmp_path, capsys):
    file = tmp_path / "new" / "latents.npz"
    assert main(["encode", str(run), "--split", "test", "--out", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    model, inputs, labels = inputs_of(run, "test")
    with np.load(file) as saved:
        assert set(saved) == {"latents", "labels", "index"}
        assert len(inputs[0]) > latents.EVALUATION_BATCH
        torch.testing.assert_close(torch.from_numpy(saved["latents"]), model.embed(*inputs))
        assert np.array_equal(saved["labels"], labels)
        assert np.array_equal(saved["index"], np.arange(len(labels)))
    assert [path.name for path in file.parent.iterdir()] == ["latents.npz"]


def test_latents_of_a_folder_have_the_names_of_its_files(runs, tmp_path):
    for index in range(11):
        folder = tmp_path / "images" / ("ants" if index % 2 else "bees")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * index).save(folder / f"{index}.png")
    (tmp_path / "images" / "ants" / "3.png").write_bytes(b"")  # left out
    arguments = ["--data", f"folder:{tmp_path}/images", "--out", str(tmp_path / "a.npz")]
    assert main(["encode", str(runs / "nvp"), *arguments]) == 0
    with np.load(tmp_path / "a.npz") as saved:  # which refuses pickled objects
        names, labels, classes, codes = (saved[name] for name in ("names", "labels", "class_names", "latents"))
    assert [*classes[labels]] == [name.partition("/")[0] for name in names]
    assert len(names) == len(set(names)) == 9  # of eleven one cannot be read, and one is for testing
    model = geco_ext.load_run(runs / "nvp").model
    for name, code in zip(names, codes, strict=True):
        x = torch.full((1, 1, 8, 8), 20 * int(name.partition("/")[2].removesuffix(".png")) / 255)
        torch.testing.assert_close(torch.from_numpy(code), model.embed(x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [23, 3])
def test_all_of_a_folder_are_its_two_parts_one_after_the_other(runs, tmp_path, count):
    """Of three images none is for testing."""
    (tmp_path / "images").mkdir()
    for index in range(count):
        Image.new("L", (8, 8), 10 * index).save(tmp_path / "images" / f"{index:02d}.png")

    def encoded(split):
        options = ["--data", f"folder:{tmp_path}/images", "--samples", "1", "--out", str(tmp_path / "a.npz")]
        assert main(["encode", str(runs / "nvp"), "--split", split, *options]) == 0
        with np.load(tmp_path / "a.npz") as saved:
            return dict(saved)

    together, parts = encoded("all"), [encoded(split) for split in ("train", "test")[: 1 + (count > 9)]]
    assert "split" not in parts[0]
    for name in ("latents", "labels", "index", "names"):
        assert np.array_equal(together[name], np.concatenate([part[name] for part in parts]))
    assert np.array_equal(together["class_names"], parts[0]["class_names"])
    assert sorted(together["names"]) == [f"{index:02d}.png" for index in range(count)]
    assert [*together["names"][together["split"] == "test"]] == ["09.png", "19.png"][: count // 10]


def test_samples_follow_the_seed(runs, tmp_path):
    def encoded(*options):
        assert main(["encode", str(runs / "nvp"), "--split", "test", "--out", str(tmp_path / "a.npz"), *options]) == 0
        with np.load(tmp_path / "a.npz") as saved:
            return saved["latents"]

    one, same, other = (encoded("--samples", "1", "--seed", seed) for seed in "112")
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    difference = [np.abs(encoded("--samples", n) - encoded()).mean() for n in ("1", "64")]
    assert difference[1] < difference[0]  # the mean of many is nearer to the middle of the posterior


def test_other_data_are_brought_to_the_size_of_the_model(runs, tmp_path):
    photographs = np.random.default_rng(0).random((20, 1, 12, 12), dtype=np.float32)
    np.save(tmp_path / "photographs.npy", photographs)
    data, file = f"npy:{tmp_path / 'photographs.npy'}", tmp_path / "latents.npz"
    assert main(["encode", str(runs / "nvp"), "--data", data, "--out", str(file)]) == 0
    x = geco_ext.data.load(data, size=8)[:]["x"]
    with np.load(file) as saved:
        torch.testing.assert_close(torch.from_numpy(saved["latents"]), geco_ext.load_run(runs / "nvp").model.embed(x))


def test_without_a_name_the_file_goes_to_the_run(runs):
    checkpoint = runs / "nvp" / "checkpoints" / "last.ckpt"
    assert main(["encode", str(checkpoint), "--split", "test"]) == 0
    assert main(["interpolate", str(checkpoint), "3", "4", "--split", "test"]) == 0
    for name in ("latents-test.npz", "interpolation-test-3-4.png"):
        (runs / "nvp" / name).unlink()


def test_an_interrupted_run_leaves_what_was_there(runs, tmp_path, monkeypatch, capsys):
    file = tmp_path / "latents.npz"
    file.write_text("older")
    embed, calls = NVPVAE.embed, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return embed(*arguments, **options)

    monkeypatch.setattr(NVPVAE, "embed", interrupted)
    assert main(["encode", str(runs / "nvp"), "--out", str(file)]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "geco: interrupted; nothing was written"
    assert file.read_text() == "older"
    assert list(tmp_path.iterdir()) == [file]


def test_the_way_between_two_examples(run, tmp_path):
    file = tmp_path / "way.png"
    assert main(["interpolate", str(run), "5", "7", "--steps", "4", "--out", str(file)]) == 0
    pixels = torch.tensor(matplotlib.image.imread(file))[TITLE_HEIGHT:, NAME_WIDTH:, :3]
    model, (x, *context), _ = inputs_of(run, "train", torch.tensor([5, 7]))
    pairs = [each[index : index + 1] for each in context for index in (0, 1)]
    images = [x[:1], *model.interpolate(x[:1], x[1:], 4, *pairs), x[1:]]
    assert len(pixels) == (1 + len(context)) * TILE
    width = max(1, *(each.shape[1] for each in context), 1) * SMALLEST_TILE + 2
    for index, image in enumerate(images):
        tile = pixels[-TILE:, index * width : index * width + TILE]
        expected = image[0, 0].repeat_interleave(6, 0).repeat_interleave(6, 1)
        torch.testing.assert_close(tile[1:-1, 1:-1], expected[..., None].expand(-1, -1, 3), rtol=0, atol=1 / 255)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "{tmp}"], "no run in"),
        (["encode", "{nvp}", "--out", "latents.npy"], "out must be a file name ending in .npz, got latents.npy"),
        (["encode", "{nvp}", "--split", "val"], "split must be one of train, test, all, got 'val'"),
        (["interpolate", "{nvp}", "0", "1", "--split", "all"], "split must be 'train' or 'test', got 'all'"),
        (["encode", "{nvp}", "--samples", "-1"], "Invalid value for '--samples'"),
        (["encode", "{nvp}", "--data", "nonsense"], "unknown data set 'nonsense'"),
        (["encode", "{nvp}", "--data", "color-digits"], "(3, 8, 8), the run's model takes (1, 8, 8)"),
        (["encode", "{convdraw}", "--data", "digits"], "contexts of shape None, the run's model takes (2, 8, 8)"),
        (["encode", "{nvp}", "--data", "npy:{tmp}/none.npy"], "none.npy"),
        (["encode", "{nvp}", "--out", "{nvp}/config.json/latents.npz"], "latents.npz cannot be written"),
        (["interpolate", "{tmp}", "0", "1"], "no run in"),
        (["interpolate", "{nvp}", "0", "1500"], "B must be below the 1500 examples of 'digits' (train), got 1500"),
        (["interpolate", "{nvp}", "-1", "1"], "No such option: -1"),
        (["interpolate", "{nvp}", "0", "1", "--steps", "1"], "Invalid value for '--steps'"),
        (["interpolate", "{nvp}", "0", "1", "--out", "way.jpg"], "out must be a file name ending in .png, got way.jpg"),
        (["interpolate", "{nvp}", "0", "1", "--out", "{folder}"], "out must be a file name, got the folder"),
    ],
)
def test_wrong_input_is_one_line(runs, tmp_path, capsys, arguments, message):
    (folder := tmp_path / "folder.png").mkdir()
    names = {"tmp": tmp_path, "nvp": runs / "nvp", "convdraw": runs / "convdraw", "folder": folder}
    assert main([argument.format(**names) for argument in arguments]) == 2
    assert message in one_line(capsys.readouterr())
    assert list(tmp_path.iterdir()) == [folder]

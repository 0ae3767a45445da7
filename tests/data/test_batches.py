"""Batches: the same values whichever way they are kept and asked for."""

import numpy as np
import pytest
import torch

import geco_ext.data
from geco_ext.data import ImageDataset
from geco_ext.data.images import ColouredImages, StoredImages

COUNT = 12
LEVELS = torch.randint(256, (COUNT, 3, 6, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
ROWS = torch.tensor([[3, 3, 0], [11, 5, 7]])


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("storage", ["float32", "uint8", "mapped"])
def test_all_ways_of_keeping_images_give_the_same_float32(tmp_path, storage):
    if storage == "mapped":
        np.save(tmp_path / "array.npy", LEVELS.numpy())
        pixels = torch.from_numpy(np.load(tmp_path / "array.npy", mmap_mode="c"))
    else:
        pixels = LEVELS if storage == "uint8" else LEVELS.float() / 255
    expected = LEVELS.float() / 255
    dataset = ImageDataset(pixels, torch.arange(COUNT), StoredImages(pixels, torch.arange(COUNT).flip(0)))
    assert torch.equal(dataset.images, expected)
    assert torch.equal(dataset.contexts, expected.flip(0))
    indices = torch.tensor([7, 0, 7])
    assert torch.equal(dataset[indices]["x"], expected[indices])
    assert torch.equal(dataset[indices]["context"], expected.flip(0)[indices])
    stacked = StoredImages(pixels, ROWS)
    assert stacked.shape == (9, 6, 5)
    assert torch.equal(stacked.all(), expected[ROWS].reshape(2, 9, 6, 5))
    colours = torch.rand(COUNT, 3)
    grey = ColouredImages(pixels[:, :1], colours)
    assert torch.equal(grey.all(), expected[:, :1] * colours[:, :, None, None])
    assert grey.shape == grey.all().shape[1:]


def test_every_way_of_asking_gives_the_same_batch():
    dataset = geco_ext.data.load("digits-sum")
    expected = [dataset[index] for index in (1, 3, 5)]
    mask = torch.zeros(len(dataset), dtype=torch.bool)
    mask[[1, 3, 5]] = True
    from_end = [index - len(dataset) for index in (1, 3, 5)]
    for index in (torch.tensor([1, 3, 5]), [1, 3, 5], np.array([1, 3, 5]), slice(1, 6, 2), mask, from_end):
        batch = dataset[index]
        assert torch.equal(batch["x"], torch.stack([item["x"] for item in expected]))
        assert torch.equal(batch["context"], torch.stack([item["context"] for item in expected]))
        assert [tuple(label) for label in batch["label"].tolist()] == [item["label"] for item in expected]
    reverse = dataset[5:0:-2]
    assert torch.equal(reverse["x"], dataset[[5, 3, 1]]["x"])


def test_one_index_gives_one_example():
    dataset = geco_ext.data.load("digits")
    for index in (np.int64(4), torch.tensor(4), 4 - len(dataset)):
        item = dataset[index]
        assert type(item["label"]) is int
        assert torch.equal(item["x"], dataset[4]["x"])
    assert len(list(dataset)) == len(dataset)


@pytest.mark.parametrize("index", [1500, -1501, torch.tensor([0, 1500]), [0, -1501]])
def test_an_index_out_of_range_is_named(index):
    with pytest.raises(IndexError, match=r"index -?150. is out of range for 1500 examples"):
        geco_ext.data.load("digits")[index]


@pytest.mark.parametrize("index", [1.5, [1.5], torch.zeros(3, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.int64)])
def test_an_index_that_is_none_is_named(index):
    with pytest.raises(TypeError, match=r"an index must be an integer, integers \[B\] or a mask \[1500\], got torch"):
        geco_ext.data.load("digits")[index]


def test_a_batch_may_be_empty():
    for name in ("digits-sum", "digits-triplets", "color-digits"):
        batch = geco_ext.data.load(name)[[]]
        assert batch["x"].shape == (0, *geco_ext.data.load(name).image_shape)


def test_a_batch_is_the_callers_to_change():
    for name in ("digits", "digits-sum"):
        dataset = geco_ext.data.load(name)
        for index in (torch.arange(3), slice(0, 3), 0):
            before = {key: torch.as_tensor(value).clone() for key, value in dataset[index].items()}
            dataset[index]["x"].zero_()
            assert same({key: torch.as_tensor(value) for key, value in dataset[index].items()}, before)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_arrays_that_need_no_resizing_stay_in_their_file(tmp_path, dtype):
    values = np.random.RandomState(0).randint(256, size=(40, 3, 8, 8))
    np.save(tmp_path / "array.npy", (values if dtype == np.uint8 else values / 255).astype(dtype))
    dataset = geco_ext.data.load(f"npy:{tmp_path}/array.npy", size=8)
    assert len(dataset) == 36
    train = [index for index in range(40) if index % 10 != 9]
    torch.testing.assert_close(dataset.images, torch.from_numpy(values[train] / 255).float(), rtol=0, atol=1e-7)
    dataset[torch.arange(5)]["x"].zero_()
    changed = np.load(tmp_path / "array.npy", mmap_mode="r+")
    changed[0] = 0
    changed.flush()
    assert dataset[0]["x"].abs().max() == 0  # read from the file, not from a copy
    assert dataset[1]["x"].abs().max() > 0


def test_arrays_of_other_forms_are_converted(tmp_path):
    values = np.random.RandomState(0).rand(20, 8, 6)
    for name, array in {
        "float64": values,
        "big endian": values.astype(">f4"),
        "fortran": np.asfortranarray(values.astype(np.float32)),
        "half": values.astype(np.float16),
    }.items():
        np.save(tmp_path / "array.npy", array)
        images = geco_ext.data.load(f"npy:{tmp_path}/array.npy", "test").images
        expected = torch.from_numpy(values[[9, 19]][:, None]).float()
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-3 if name == "half" else 1e-7)
    assert geco_ext.data.load(f"npy:{tmp_path}/array.npy", size=6).image_shape == (1, 6, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"storage": "float16"}, "storage must be 'float32' or 'uint8', got 'float16'"),
        ({"seed": 2**32}, "seed must be an integer >= 0 and at most 4294967295, got 4294967296"),
        ({"seed": True}, "seed must be an integer"),
        ({"size": 100000}, "size must be a positive integer .* at most 1024.* got 100000"),
    ],
)
def test_values_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        geco_ext.data.load("digits", **arguments)


def test_data_that_do_not_fit_each_other_are_refused():
    images = torch.rand(4, 1, 8, 8)
    with pytest.raises(ValueError, match=r"images must be float32 .*got torch.float64"):
        ImageDataset(images.double(), torch.arange(4))
    with pytest.raises(ValueError, match=r"labels must be integers of shape \[4\]"):
        ImageDataset(images, torch.arange(5))
    with pytest.raises(ValueError, match="contexts must be 4, as many as images, got 3"):
        ImageDataset(images, torch.arange(4), images[:3])

import io

import numpy as np
import pytest
import torch
from PIL import Image

import geco_ext.data


def save_images(folder, count=20, shape=(12, 12), mode="L"):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new(mode, (shape[1], shape[0]), index * 10 if mode == "L" else (index * 10, 0, 255)).save(
            folder / f"{index:03d}.png"
        )


def test_digits_are_the_fixed_split_of_scikit_learn():
    from sklearn.datasets import load_digits

    raw = load_digits()
    train, test = geco_ext.data.load("digits"), geco_ext.data.load("digits", "test")
    assert (len(train), len(test)) == (1500, 297)
    assert train.image_shape == (1, 8, 8)
    images = torch.cat([train.images, test.images])
    assert torch.equal(images[:, 0] * 16, torch.from_numpy(raw.images).float())
    assert torch.cat([train.labels, test.labels]).tolist() == raw.target.tolist()


def test_digits_resize_is_bilinear_between_pixel_centres():
    small, large = geco_ext.data.load("digits"), geco_ext.data.load("digits", size=16)
    expected = torch.nn.functional.interpolate(small.images, size=(16, 16), mode="bilinear", align_corners=False)
    assert torch.equal(large.images, expected)


@pytest.mark.parametrize("name", ["digits", "patches"])
def test_items_are_what_the_api_says(name):
    dataset = geco_ext.data.load(name, size=16)
    item = dataset[7]
    assert sorted(item) == ["label", "x"]
    assert item["x"].dtype == torch.float32
    assert item["x"].shape == dataset.image_shape
    assert type(item["label"]) is int
    assert dataset.images.min() >= 0
    assert dataset.images.max() <= 1
    assert dataset.context_shape is None


def test_a_batch_of_indices_is_the_stack_of_its_items():
    dataset = geco_ext.data.load("digits")
    indices = torch.tensor([5, 0, 1499])
    batch = dataset[indices]
    assert torch.equal(batch["x"], torch.stack([dataset[int(index)]["x"] for index in indices]))
    assert batch["label"].tolist() == [dataset[int(index)]["label"] for index in indices]


def test_the_usual_loader_collates_the_items():
    loader = torch.utils.data.DataLoader(geco_ext.data.load("digits"), batch_size=4)
    batch = next(iter(loader))
    assert batch["x"].shape == (4, 1, 8, 8)
    assert batch["label"].tolist() == [0, 1, 2, 3]


def test_patches_are_crops_of_the_photographs_and_repeat_with_the_seed():
    from sklearn.datasets import load_sample_image

    first, again, other = (geco_ext.data.load("patches", size=24, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert first.image_shape == (3, 24, 24)
    photograph = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)
    windows = photograph.unfold(1, 24, 1).unfold(2, 24, 1)
    crop = (first.images[first.labels == 1][0] * 255).round().to(torch.uint8)
    assert (windows == crop[:, None, None]).all(dim=(0, 3, 4)).any()


def test_patches_for_training_and_testing_share_no_pixel():
    # A photograph whose pixels hold their column makes the crop's column readable from its values.
    from geco_ext.data import patches

    columns = torch.arange(640).expand(3, 427, 640)
    random = np.random.RandomState(0)
    train = patches._random_crops(patches._part(columns, "train"), 32, 500, random)
    test = patches._random_crops(patches._part(columns, "test"), 32, 500, random)
    assert train.max() < test.min()


def test_labels_may_be_tuples_and_contexts_ride_along():
    dataset = geco_ext.data.ImageDataset(
        torch.rand(4, 3, 8, 8), torch.arange(12).reshape(4, 3), contexts=torch.rand(4, 2, 8, 8)
    )
    item = dataset[1]
    assert item["label"] == (3, 4, 5)
    assert item["context"].shape == dataset.context_shape == (2, 8, 8)


def test_a_folder_of_grey_images_keeps_one_channel_and_labels_by_sub_folder(tmp_path):
    save_images(tmp_path / "cats", 20)
    save_images(tmp_path / "dogs", 20)
    train = geco_ext.data.load(f"folder:{tmp_path}")
    test = geco_ext.data.load(f"folder:{tmp_path}", "test")
    assert (len(train), len(test)) == (36, 4)
    assert train.image_shape == (1, 12, 12)
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert torch.allclose(test.images[:2, 0, 0, 0], torch.tensor([90 / 255, 190 / 255]))


def test_a_mixed_folder_becomes_colour_and_is_resized_from_its_centre(tmp_path):
    save_images(tmp_path, 5, shape=(12, 20))
    save_images(tmp_path / "colour", 5, shape=(30, 10), mode="RGB")
    dataset = geco_ext.data.load(f"folder:{tmp_path}", size=8)
    assert dataset.image_shape == (3, 8, 8)
    assert torch.allclose(dataset.images[-1], torch.tensor([30 / 255, 0, 1]).reshape(3, 1, 1).expand(3, 8, 8))


def test_sixteen_bit_images_are_scaled_not_clipped(tmp_path):
    for index in range(3):
        Image.fromarray(np.full((6, 6), 20000 * (index + 1), dtype=np.uint16)).save(tmp_path / f"{index}.png")
    dataset = geco_ext.data.load(f"folder:{tmp_path}")
    assert torch.allclose(dataset.images[:, 0, 0, 0], torch.tensor([20000, 40000, 60000]) / 65535)


@pytest.mark.parametrize(("shape", "image_shape"), [((20, 8, 8), (1, 8, 8)), ((20, 3, 8, 6), (3, 8, 6))])
def test_arrays_of_bytes_and_of_floats_agree(tmp_path, shape, image_shape):
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "bytes.npy", values)
    np.save(tmp_path / "floats.npy", values / 255)
    of_bytes, of_floats = (geco_ext.data.load(f"npy:{tmp_path / name}.npy") for name in ("bytes", "floats"))
    assert of_bytes.image_shape == image_shape
    assert len(of_bytes) == 18
    assert torch.allclose(of_bytes.images, of_floats.images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "mnits"},
            r"unknown data set 'mnits' \(did you mean 'mnist'\?\); known are digits, patches, .*, npy:PATH; geco list",
        ),
        ({"name": "folder:"}, "unknown data set 'folder:'"),
        ({"name": "digits", "split": "validation"}, "split must be 'train' or 'test', got 'validation'"),
        ({"name": "digits", "size": 0}, "size must be a positive integer"),
        ({"name": "digits", "size": 8.0}, "size must be a positive integer"),
        ({"name": "digits", "seed": -1}, "seed must be an integer >= 0"),
        ({"name": "patches", "size": 500}, "size must be at most 427"),
        ({"name": "patches", "split": "test", "size": 129}, "size must be at most 128 for this split of 'patches'"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        geco_ext.data.load(**arguments)


def test_missing_paths_are_named(tmp_path):
    for kind in ("folder", "npy"):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            geco_ext.data.load(f"{kind}:{tmp_path}/nowhere")


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="no images there"):
        geco_ext.data.load(f"folder:{tmp_path}")
    (tmp_path / "text.npy").write_bytes(b"not an array")
    with pytest.raises(ValueError, match=r"text\.npy' is not an \.npy file"):
        geco_ext.data.load(f"npy:{tmp_path}/text.npy")
    np.save(tmp_path / "truncated.npy", np.zeros((10, 8, 8)))
    (tmp_path / "truncated.npy").write_bytes((tmp_path / "truncated.npy").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"truncated\.npy' cannot be read as an \.npy array"):
        geco_ext.data.load(f"npy:{tmp_path}/truncated.npy")


def encoded(image, format):
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.png", b"not an image"),
        ("cut.png", encoded(Image.new("L", (40, 40)), "PNG")[:-30]),
        ("damaged.png", encoded(Image.new("RGB", (40, 40)), "PNG").replace(b"IDAT", b"IDAX")),
        ("header.png", encoded(Image.new("L", (40, 40)), "PNG")[:20]),
        ("cut.pgm", encoded(Image.new("L", (40, 40)), "PPM")[:100]),
        ("header.pgm", b"P5 40"),
        ("cut.jpg", encoded(Image.new("L", (400, 400)), "JPEG")[:300]),
        ("cut.tif", encoded(Image.new("L", (40, 40)), "TIFF")[:60]),
    ],
)
def test_broken_images_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} cannot be read as an image: .+; replace or remove it"):
        geco_ext.data.load(f"folder:{tmp_path}", strict=True)
    with pytest.raises(ValueError, match=rf"none of the 1 images can be read; \S*{name} cannot"):
        geco_ext.data.load(f"folder:{tmp_path}")


@pytest.mark.parametrize("position", range(10, 70, 3))
def test_a_damaged_array_file_is_named_or_still_one(tmp_path, position):
    np.save(tmp_path / "array.npy", np.zeros((20, 6, 6)))
    content = (tmp_path / "array.npy").read_bytes()
    for byte in b"\x00(',-\xff9":
        (tmp_path / "array.npy").write_bytes(content[:position] + bytes([byte]) + content[position + 1 :])
        try:
            geco_ext.data.load(f"npy:{tmp_path}/array.npy")
        except ValueError as error:
            assert "array.npy" in str(error)  # noqa: PT017 - a changed digit of the shape may leave an array


def test_values_that_are_not_of_images_are_refused(tmp_path):
    for index, values in enumerate(([0.0, 0.5, 0.9], [0.0, 1.0, 1.5])):
        folder = tmp_path / str(index)
        folder.mkdir()
        Image.fromarray(np.resize(np.float32(values), (6, 6))).save(folder / "float.tif")
    assert geco_ext.data.load(f"folder:{tmp_path / '0'}").images.amax() == np.float32(0.9)
    with pytest.raises(ValueError, match=r"float\.tif holds values from 0 to 1\.5, expected 0 to 1"):
        geco_ext.data.load(f"folder:{tmp_path / '1'}")
    Image.fromarray(np.resize(np.int32([-5, 100000]), (6, 6))).save(tmp_path / "1" / "float.tif")
    with pytest.raises(ValueError, match=r"float\.tif holds values from -5 to 100000, expected 0 to 65535"):
        geco_ext.data.load(f"folder:{tmp_path / '1'}")


def test_hidden_files_and_folders_named_like_images_are_skipped(tmp_path):
    save_images(tmp_path, 3)
    (tmp_path / "._000.png").write_bytes(b"what macOS leaves")
    save_images(tmp_path / "b.png", 2)
    assert len(geco_ext.data.load(f"folder:{tmp_path}")) == 5


def test_photographs_are_turned_as_their_camera_says(tmp_path):
    image = Image.new("L", (12, 6))
    image.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright: turn clockwise to see it
    image.save(tmp_path / "portrait.png", exif=exif)
    pixels = geco_ext.data.load(f"folder:{tmp_path}").images
    assert pixels.shape == (1, 1, 12, 6)
    assert pixels[0, 0].argmax() == 5


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("LA", 1), ("P", 1), ("RGBA", 3), ("CMYK", 3)])
def test_grey_is_grey_in_every_mode(tmp_path, mode, channels):
    Image.new("RGB", (6, 6), "white").convert("L" if channels == 1 else "RGB").convert(mode).save(
        tmp_path / "image.tif"
    )
    images = geco_ext.data.load(f"folder:{tmp_path}").images
    assert images.shape == (1, channels, 6, 6)
    assert images.min() == 1


def test_arrays_with_channels_last_are_refused(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros((20, 16, 16, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"looks like \[N, H, W, C\]; save array\.transpose\(0, 3, 1, 2\)"):
        geco_ext.data.load(f"npy:{tmp_path}/array.npy")


def test_the_centre_square_is_what_is_resized(tmp_path):
    random = np.random.default_rng(0)
    tall, wide = (random.integers(256, size=size, dtype=np.uint8) for size in ((31, 14), (14, 31)))
    for name, image in (("tall", tall), ("wide", wide)):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    np.save(tmp_path / "wide.npy", np.stack([wide] * 2))
    squares = torch.stack([torch.from_numpy(tall[8:22]), torch.from_numpy(wide[:, 8:22])])[:, None] / 255
    for size in (7, 14):
        expected = torch.nn.functional.interpolate(squares, (size, size), mode="bilinear", antialias=True)
        torch.testing.assert_close(geco_ext.data.load(f"folder:{tmp_path}", size=size).images, expected)
        of_array = geco_ext.data.load(f"npy:{tmp_path}/wide.npy", size=size).images
        torch.testing.assert_close(of_array, expected[1:].expand(2, -1, -1, -1))


def test_integers_of_numpy_are_integers():
    first, again = (geco_ext.data.load("patches", size=to(16), seed=to(3)) for to in (int, np.int64))
    assert torch.equal(first.images, again.images)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4)), r"expected shape \[N, H, W\]"),
        (np.zeros((0, 4, 4)), r"expected shape \[N, H, W\]"),
        (np.full((4, 4, 4), 2.0), r"expected values in \[0, 1\], got 2 to 2"),
        (np.full((4, 4, 4), np.nan), r"expected values in \[0, 1\]"),
        (np.zeros((4, 4, 4), dtype=np.int64), "expected uint8 or floating point"),
    ],
)
def test_unusable_arrays_are_refused(tmp_path, array, message):
    np.save(tmp_path / "array.npy", array)
    with pytest.raises(ValueError, match=message):
        geco_ext.data.load(f"npy:{tmp_path}/array.npy")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_of_an_array_marks_missing_pixels(tmp_path, dtype):
    array = np.random.default_rng(0).random((6, 2, 8, 8)).astype(dtype)
    array[1, 0, 2:4, 5] = np.nan
    np.save(tmp_path / "array.npy", array)
    dataset = geco_ext.data.load(f"npy:{tmp_path}/array.npy", "train")
    batch = dataset[:]
    known = ~torch.from_numpy(np.isnan(array))[: len(dataset)]
    assert batch["weight"].dtype == torch.bool
    assert int((~batch["weight"]).sum()) == int((~known).sum()) == 2
    assert torch.equal(batch["x"][~batch["weight"]], torch.zeros(2))
    assert dataset[0]["weight"].shape == (2, 8, 8)
    resized = geco_ext.data.load(f"npy:{tmp_path}/array.npy", "train", size=4)
    assert 0 < int((~resized[:]["weight"]).sum()) <= 8
    with pytest.raises(ValueError, match="NaN"):
        geco_ext.data.load(f"npy:{tmp_path}/array.npy", "train", storage="uint8")


def test_an_array_without_nan_has_no_weights(tmp_path):
    np.save(tmp_path / "array.npy", np.random.default_rng(0).random((6, 8, 8)))
    assert "weight" not in geco_ext.data.load(f"npy:{tmp_path}/array.npy", "train")[:2]


def test_a_split_without_examples_is_refused(tmp_path):
    np.save(tmp_path / "few.npy", np.zeros((3, 4, 4)))
    with pytest.raises(ValueError, match="3 images are too few for a 'test' split"):
        geco_ext.data.load(f"npy:{tmp_path}/few.npy", "test")
    save_images(tmp_path / "one", 1)
    with pytest.raises(ValueError, match="1 image is too few for a 'test' split"):
        geco_ext.data.load(f"folder:{tmp_path / 'one'}", "test")

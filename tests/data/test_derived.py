"""Relations between labels and images, and rotations, of every item, against an independent computation."""

import gzip
import hashlib

import numpy as np
import pytest
import scipy.ndimage
import torch
from formats import idx, small_mnist, write
from PIL import Image

import geco_ext.data
from geco_ext.data.derived import rotate

SPLITS = ("train", "test")


@pytest.fixture(scope="module", params=["digits", "mnist"])
def source(request, tmp_path_factory):
    """Loads a data set made of the digits of a source, small in the case of MNIST."""
    root = None if request.param == "digits" else write(tmp_path_factory.mktemp("mnist"), small_mnist(300, 100))
    size = {"digits": 16, "mnist": 20}[request.param]

    def load(pattern="{}", split="train", seed=0, storage="float32"):
        name = pattern.format(request.param)
        return geco_ext.data.load(name, split, root=root, size=size, seed=seed, storage=storage)

    return load


def digit_of(image, digits):
    """Labels of the source digits that an image [H, W] is, looked up by its bytes."""
    return {int(label) for row, label in digits.get(image.numpy().tobytes(), ())}


def by_bytes(dataset):
    found = {}
    for row, (image, label) in enumerate(zip(dataset.images[:, 0], dataset.labels, strict=True)):
        found.setdefault(image.numpy().tobytes(), []).append((row, int(label)))
    return found


def items(dataset):
    for index in range(len(dataset)):
        yield dataset[index]


@pytest.mark.parametrize("split", SPLITS)
def test_triplets_add_up(source, split):
    digits = by_bytes(source(split=split))
    dataset = source("{}-triplets", split)
    assert len(dataset) == len(source(split=split))
    for item in items(dataset):
        l0, l1, l2 = item["label"]
        assert l2 == (l0 + l1) % 10
        assert "context" not in item
        assert len(item["x"]) == 3
        for image, label in zip(item["x"], item["label"], strict=True):
            assert label in digit_of(image, digits)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("variant", ["{}-sum", "{}-sum-hard"])
def test_sums_are_of_their_context(source, split, variant):
    digits = by_bytes(source(split=split))
    for item in items(source(variant, split)):
        l0, l1, l2 = item["label"]
        assert l2 == (l0 + l1) % 10
        both = ("context", "x") if variant == "{}-sum" else ("x", "context")
        first, last = (item[name] for name in both)
        for image, label in zip([*first, *last], (l0, l1, l2), strict=True):
            assert label in digit_of(image, digits)
        assert (len(first), len(last)) == (2, 1)


@pytest.mark.parametrize("variant", ["{}-triplets", "{}-rotate"])
def test_the_last_digit_is_drawn_among_all_of_its_label(source, variant):
    digits, dataset = source(), source(variant)
    last = dataset.images[:, -1]
    if variant == "{}-rotate":
        last = last[dataset.labels[:, 1] == 0]  # those that are not turned
    distances, drawn = torch.cdist(
        last.flatten(1), digits.images.flatten(1), compute_mode="donot_use_mm_for_euclid_dist"
    ).min(dim=1)
    assert distances.max() < 1e-4
    # Of n equal draws among n, 1 - 1/e = 63% are seen; of fewer, more.
    assert len(drawn.unique()) > 0.55 * len(drawn)


def test_sums_hold_the_same_triplets(source):
    stack, easy, hard = (source(f"{{}}-{kind}") for kind in ("triplets", "sum", "sum-hard"))
    assert torch.equal(stack.images, torch.cat([easy.contexts, easy.images], dim=1))
    assert torch.equal(stack.images, torch.cat([hard.images, hard.contexts], dim=1))


@pytest.mark.parametrize("split", SPLITS)
def test_rotations_are_those_of_scipy(source, split):
    digits = source(split=split)
    rows = by_bytes(digits)
    images = digits.images[:, 0].numpy().astype(np.float64)
    turned = {}  # by angle and label: every digit that I2 may be, turned by SciPy
    for item in items(source("{}-rotate", split)):
        l0, l1, l2 = item["label"]
        assert l2 == l0
        assert l0 in digit_of(item["context"][0], rows)
        assert l1 in digit_of(item["context"][1], rows)
        if (l0, l1) not in turned:
            candidates = (digits.labels == l0).nonzero().squeeze(1).numpy()
            turned[l0, l1] = (
                candidates,
                scipy.ndimage.rotate(
                    images[candidates], 30 * l1, axes=(2, 1), reshape=False, order=1, mode="grid-constant", cval=0
                ),
            )
        candidates, expected = turned[l0, l1]
        distances = np.abs(expected - item["x"][0].numpy()).max(axis=(1, 2))
        matching = set(candidates[distances < 1e-6].tolist())
        own = {row for row, _ in rows[item["context"][0].numpy().tobytes()]}
        assert matching - own  # another instance


def test_turning_is_counter_clockwise_about_the_centre():
    image = torch.rand(1, 1, 9, 9)
    for label, quarter_turns in ((0, 0), (3, 1), (6, 2), (9, 3)):
        assert torch.equal(rotate(image, torch.tensor([label]))[0, 0], image[0, 0].rot90(quarter_turns))
    blob = torch.zeros(1, 1, 33, 33)
    blob[..., 16, 28] = 1  # to the right of the centre, so 30 degrees counter-clockwise is right and up
    turned = rotate(torch.nn.functional.avg_pool2d(blob, 3, 1, 1), torch.tensor([1]))[0, 0]
    row, column = divmod(int(turned.argmax()), 33)
    assert (row, column) == (10, 26)
    # Pillow documents its angle as counter-clockwise, too.
    by_pillow = Image.fromarray((blob[0, 0] * 255).byte().numpy()).rotate(30, Image.Resampling.BILINEAR)
    row_there, column_there = divmod(int(np.asarray(by_pillow).argmax()), 33)
    assert abs(row_there - row) <= 1
    assert abs(column_there - column) <= 1


@pytest.mark.parametrize("split", SPLITS)
def test_colours_are_one_for_each_digit(source, split):
    digits = source(split=split)
    dataset = source("color-{}", split)
    assert dataset.image_shape == (3, *digits.image_shape[1:])
    assert torch.equal(dataset.labels, digits.labels)
    images, grey = dataset.images, digits.images
    colours = images.sum(dim=(2, 3)) / grey.sum(dim=(2, 3))
    torch.testing.assert_close(images, grey * colours[:, :, None, None], rtol=0, atol=2e-6)
    assert images.min() >= 0
    assert images.max() <= 1
    clipped = np.clip(np.random.RandomState(0).normal(0.5, 0.25, 100000), 0, 1)
    error = 4 * clipped.std() / (3 * len(digits)) ** 0.5
    assert abs(float(colours.mean()) - clipped.mean()) < error
    assert abs(float(colours.std()) - clipped.std()) < error


def test_micro_is_seven_digits_of_the_source(source):
    digits = by_bytes(source())
    dataset = source("micro-{}")
    assert len(dataset) == 7
    for item in items(dataset):
        assert item["label"] in digit_of(item["x"][0], digits)


VARIANTS = ["color-{}", "{}-triplets", "{}-sum", "{}-sum-hard", "{}-rotate", "micro-{}"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_seed_and_nothing_else_decides(source, variant):
    first = source(variant, seed=5)
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    again, other = source(variant, seed=5), source(variant, seed=6)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert first.images.shape == other.images.shape
    assert not torch.equal(first.images, other.images)


def test_the_draws_are_those_they_have_always_been():
    # Results are compared by seed: if a release of NumPy or PyTorch, or a change here, draws otherwise, this says so.
    labels = geco_ext.data.load("digits-rotate", seed=1).labels
    assert hashlib.sha256(labels.numpy().tobytes()).hexdigest()[:16] == "ef0ae3409f520ff7"
    assert geco_ext.data.load("micro-digits", seed=1).labels.tolist() == [6, 9, 8, 5, 2, 5, 0]
    colours = geco_ext.data.load("color-digits", seed=1).images.amax(dim=(2, 3))[:2]
    assert colours.mul(1000).round().int().tolist() == [[0, 463, 292], [765, 685, 467]]
    patches = geco_ext.data.load("patches", seed=1, storage="uint8")
    assert (
        hashlib.sha256(patches[:]["x"].mul(255).round().byte().numpy().tobytes()).hexdigest()[:16] == "2a0d9d73a9e745b2"
    )


# Of the two others it is shown above: their images are those of their split, coloured or turned.
@pytest.mark.parametrize("variant", sorted({*VARIANTS} - {"color-{}", "{}-rotate"}))
def test_train_and_test_share_no_digit(source, variant):
    digits = {split: set(by_bytes(source(split=split))) for split in SPLITS}
    for split in SPLITS:
        dataset = source(variant, split)
        channels = torch.cat([dataset.images, *([dataset.contexts] if dataset.contexts is not None else [])], dim=1)
        assert {image.numpy().tobytes() for image in channels.flatten(0, 1)} <= digits[split]
    assert not digits["train"] & digits["test"]


@pytest.mark.parametrize("variant", ["{}", *VARIANTS])
def test_bytes_are_the_nearest_levels(source, variant):
    exact, rounded = source(variant), source(variant, storage="uint8")
    assert torch.equal(exact.labels, rounded.labels)
    for name in ("x", "context"):
        if name in exact[0]:
            assert rounded[0][name].dtype == torch.float32
            worst = (exact[:][name] - rounded[:][name]).abs().max()
            assert worst <= (1.01 if variant == "{}-rotate" else 0.501) / 255


def test_digits_that_are_missing_are_named(tmp_path):
    images, labels = np.zeros((30, 8, 8), np.uint8), np.arange(30, dtype=np.uint8) % 9
    write(
        tmp_path, {"train-images-idx3-ubyte.gz": idx(images), "train-labels-idx1-ubyte.gz": gzip.compress(idx(labels))}
    )
    with pytest.raises(ValueError, match="at least 1 digits of each label, but the 'train' split has 0 of 9"):
        geco_ext.data.load("mnist-sum", root=tmp_path)
    labels = np.arange(10, dtype=np.uint8)
    write(tmp_path, {"train-images-idx3-ubyte.gz": idx(images[:10]), "train-labels-idx1-ubyte.gz": idx(labels)})
    with pytest.raises(ValueError, match="at least 2 digits of each label, but the 'train' split has 1 of 0"):
        geco_ext.data.load("mnist-rotate", root=tmp_path)
    write(tmp_path, {"train-images-idx3-ubyte.gz": idx(images[:5]), "train-labels-idx1-ubyte.gz": idx(labels[:5])})
    with pytest.raises(ValueError, match="the 'train' split has 5 digits, expected at least 7"):
        geco_ext.data.load("micro-mnist", root=tmp_path)

import shutil
import signal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_runs import assert_same_end, one_line, tiny_settings, train_until

import geco_ext
from geco_ext.cli import main
from geco_ext.data import ImageDataset
from geco_ext.training.classifier import augmented
from geco_ext.training.classifier_checkpoint import ClassifierCheckpoint, number_of_classes
from geco_ext.training.constraints import build_constraint, check_networks, with_changed_files
from geco_ext.training.session import resume, start

TINY = ["--size", "8", "--batch-size", "500", "--threads", "1", "--accelerator", "cpu"]
TINY_OPTIONS = {
    "conv": ["--model-option", "channels=4", "--model-option", "hidden=8"],
    "resnet": ["--model-option", "blocks=2", "--model-option", "width=4"],
}


def train_classifier(file, model="conv", *options):
    return main(["train-classifier", "--model", model, *TINY_OPTIONS[model], *TINY, "--out", str(file), *options])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifiers")
    for model in TINY_OPTIONS:
        assert train_classifier(folder / f"{model}.pt", model, "--steps", "30", "--learning-rate", "0.02") == 0
    return {model: folder / f"{model}.pt" for model in TINY_OPTIONS}


@pytest.fixture(scope="module")
def digits():
    return geco_ext.data.load("digits", size=8)


@pytest.mark.parametrize("model", TINY_OPTIONS)
def test_a_checkpoint_holds_a_classifier_that_is_as_good_as_it_says(files, digits, model):
    content = torch.load(files[model], weights_only=True)
    assert content["model"] == model
    assert content["image_shape"] == (1, 8, 8)
    assert content["classes"] == 10
    assert content["data"] == "digits"
    network = ClassifierCheckpoint.read(files[model]).classifier()
    assert not any(module.training for module in network.modules())
    for split, said in (("train", "train_accuracy"), ("test", "test_accuracy")):
        dataset = geco_ext.data.load("digits", split, size=8)
        correct = (network(dataset.images).argmax(1) == dataset.labels).double().mean()
        assert float(correct) == pytest.approx(content[said])
    assert content["train_accuracy"] > 0.5  # a tenth is chance


@pytest.mark.parametrize("model", TINY_OPTIONS)
def test_features_vary_by_one_over_the_training_set(files, digits, model):
    extractor = ClassifierCheckpoint.read(files[model]).extractor()
    with torch.no_grad():
        features = extractor(digits.images).double()
    assert float(features.var(0, unbiased=False).mean().sqrt()) == pytest.approx(1, rel=1e-5)
    # What reconstructs every image by the mean feature has a feature error of 1.
    assert float((features - features.mean(0)).square().mean()) == pytest.approx(1, rel=1e-5)


def test_accuracies_are_printed(tmp_path, capsys):
    assert train_classifier(tmp_path / "new" / "conv.pt", "conv", "--steps", "2") == 0
    output = capsys.readouterr().out
    assert "% of 1500, test " in output
    assert "% of 297" in output
    assert str(tmp_path / "new" / "conv.pt") in output
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["conv.pt"]


def test_one_seed_gives_one_classifier(tmp_path):
    for name in ("first", "second"):
        torch.rand(7)
        assert train_classifier(tmp_path / name, "conv", "--steps", "3") == 0
    first, second = (ClassifierCheckpoint.read(tmp_path / name).state_dict for name in ("first", "second"))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_augmented_images_are_shifted_by_at_most_a_pixel(monkeypatch):
    monkeypatch.setattr("geco_ext.training.classifier.PIXEL_NOISE", 0.0)
    images = torch.rand(50, 2, 5, 6)
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    shifts = {
        (row, column): padded[:, :, row : row + 5, column : column + 6] for row in range(3) for column in range(3)
    }
    made = augmented(images)
    found = [
        {shift for shift, shifted in shifts.items() if torch.equal(shifted[index], made[index])} for index in range(50)
    ]
    assert all(found)
    assert set.union(*found) == set(shifts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nope"], "unknown data set 'nope'; known are digits"),
        (["--steps", "0"], "steps must be an integer of at least 1, got 0"),
        (["--learning-rate", "nan"], "learning rate must be a positive number"),
        (["--seed", "-1"], "seed must be an integer from 0"),
        (["--batch-size", "5000"], "batch size must be at most the 1500 training examples"),
        (["--size", "5"], "image_shape: got (1, 5, 5), expected height and width of at least 8"),
        (["--accelerator", "nope"], "accelerator 'nope'"),
        (["--model-option", "nope=1"], "classifier 'conv' has no option 'nope'; it takes channels=32, hidden=128"),
        (["--model-option", "channels=many"], "model option must be NAME=INTEGER"),
        (["--model-option", "channels=0"], "channels: got 0, expected at least 1"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_no_file(tmp_path, capsys, options, message):
    assert train_classifier(tmp_path / "new.pt", "conv", *options) == 2
    assert message in one_line(capsys.readouterr())
    assert not list(tmp_path.iterdir())


def test_an_unknown_classifier_lists_the_known_ones(tmp_path, capsys):
    assert main(["train-classifier", "--model", "nope", "--out", str(tmp_path / "new.pt")]) == 2
    assert "unknown classifier 'nope'; known are conv, resnet" in one_line(capsys.readouterr())


def test_data_without_labels_are_refused(tmp_path, capsys):
    np.save(tmp_path / "images.npy", np.zeros((40, 8, 8), np.uint8))
    assert main(["train-classifier", "--data", f"npy:{tmp_path}/images.npy", "--out", str(tmp_path / "new.pt")]) == 2
    assert "cannot train a classifier: it has no labels" in one_line(capsys.readouterr())


def test_a_file_is_not_overwritten(files, capsys):
    before = files["conv"].read_bytes()
    assert train_classifier(files["conv"]) == 2
    assert "exists already; remove it or choose another --out" in one_line(capsys.readouterr())
    assert files["conv"].read_bytes() == before
    assert train_classifier(files["conv"] / "new.pt") == 2
    assert "cannot be written" in one_line(capsys.readouterr())


def test_control_c_leaves_no_file(tmp_path, capsys, monkeypatch):
    calls = []

    def pressed(images):
        calls.append(images)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return images

    monkeypatch.setattr("geco_ext.training.classifier.augmented", pressed)
    assert train_classifier(tmp_path / "new.pt", "conv", "--steps", "50") == 130
    assert capsys.readouterr().err.splitlines()[-1] == "geco: interrupted; nothing was saved"
    assert len(calls) == 2
    assert not list(tmp_path.iterdir())


# The constraints that take a checkpoint ----------------------------------------------------------------------------


def test_cla_and_fre_measure_with_the_checkpoint(files, digits):
    x, labels = digits.images[:20], digits.labels[:20]
    x_hat = (x + 0.1 * torch.rand_like(x)).requires_grad_()
    network = ClassifierCheckpoint.read(files["conv"]).classifier()
    accuracy = build_constraint(f"cla=0.9:{files['conv']}")
    assert isinstance(accuracy, geco_ext.ClassificationAccuracy)
    expected = 0.9 - network(x_hat).softmax(1)[torch.arange(20), labels].mean()
    assert float(accuracy(x_hat, x, labels)) == pytest.approx(float(expected), abs=1e-6)
    for model, file in files.items():
        features = ClassifierCheckpoint.read(file).extractor()
        error = build_constraint(f"fre=0.3:{file}")
        assert isinstance(error, geco_ext.FeatureReconstructionError)
        expected = (features(x_hat) - features(x)).square().mean() - 0.09
        assert float(error(x_hat, x)) == pytest.approx(float(expected), rel=1e-4), model
        error.train()(x_hat, x).backward()
    assert x_hat.grad.isfinite().all()


def test_the_path_is_remembered_as_absolute(files, monkeypatch):
    monkeypatch.chdir(files["conv"].parent)
    assert with_changed_files("cla=0.9:conv.pt") == f"cla=0.9:{files['conv']}"
    assert with_changed_files("fre=0.9") == "fre=0.9"
    file = str(files["conv"])
    called = with_changed_files("ClassificationAccuracy(0.9, 'conv.pt')")
    assert called == f"ClassificationAccuracy(kappa=0.9, classifier={file!r})"
    assert build_constraint(called).gradient == "probability"
    assert build_constraint(f"cla=0.9:{file}").gradient == "log_probability"
    called = with_changed_files("FeatureReconstructionError(extractor='conv.pt', kappa=1)")
    assert called == f"FeatureReconstructionError(kappa=1, extractor={file!r})"
    assert build_constraint(called).kappa == 1
    odd = files["conv"].parent / "a=b:c.pt"
    shutil.copy(files["conv"], odd)
    assert build_constraint(with_changed_files("cla=0.9:a=b:c.pt")).kappa == 0.9
    odd.unlink()


@pytest.fixture
def broken(tmp_path, files):
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "half.pt").write_bytes(files["conv"].read_bytes()[:2000])
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    content = torch.load(files["conv"], weights_only=True)
    torch.save({**content, "options": {"channels": 5}}, tmp_path / "wrong.pt")
    del content["classes"]
    torch.save(content, tmp_path / "lacking.pt")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cla", "constraint 'cla': kappa must be a number, got ''"),
        ("cla=0.9", "cla needs a checkpoint of geco train-classifier, cla=KAPPA:FILE"),
        ("fre=x:{}/conv.pt", "kappa must be a number, got 'x'"),
        ("cla=0.9:{}/missing.pt", "no classifier checkpoint"),
        ("cla=0.9:{}", "no classifier checkpoint"),
        ("cla=0.9:{}/text.pt", "cannot be read as a checkpoint of geco train-classifier"),
        ("fre=0.9:{}/half.pt", "cannot be read as a checkpoint of geco train-classifier"),
        ("fre=0.9:{}/other.pt", "is not a checkpoint of geco train-classifier"),
        ("cla=0.9:{}/lacking.pt", "lacks classes: it is damaged or of another version"),
        ("cla=0.9:{}/wrong.pt", "the weights are not those of the classifier 'conv'"),
    ],
)
def test_what_is_no_checkpoint_is_named_before_a_run_is_made(tmp_path, broken, capsys, text, message):
    path = tmp_path / "run"
    assert main(["train", "--size", "8", "--constraint", text.format(broken), "--out", str(path)]) == 2
    assert message in one_line(capsys.readouterr())
    assert not path.exists()


def test_kappa_out_of_range_is_named(files):
    with pytest.raises(ValueError, match=r"kappa: got 1.5, expected a number in \[0, 1\]"):
        build_constraint(f"cla=1.5:{files['conv']}")
    with pytest.raises(ValueError, match="kappa: got -1.0"):
        build_constraint(f"fre=-1:{files['resnet']}")


@pytest.mark.parametrize("text", ["cla=0.9:{conv}", "fre=0.3:{resnet}"])
@pytest.mark.parametrize("options", [["--size", "16"], ["--data", "patches", "--size", "8"]])
def test_a_classifier_of_other_images_is_refused_before_a_run_is_made(tmp_path, files, capsys, text, options):
    path = tmp_path / "run"
    assert main(["train", *options, "--constraint", text.format(**files), "--out", str(path)]) == 2
    assert "the classifier takes images of shape (C, H, W) = (1, 8, 8), data" in one_line(capsys.readouterr())
    assert not path.exists()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.arange(20) % 7, "the classifier knows 10 classes, data 'mine' has 7"),
        (torch.arange(20) % 12, "the classifier knows 10 classes, data 'mine' has 12"),
        (torch.zeros(20, dtype=torch.int64), "cannot be used with data 'mine': it has no labels"),
        (torch.zeros(20, 3, dtype=torch.int64), "it has 3 labels an example, expected one"),
        (torch.arange(20) - 1, "it has negative labels"),
    ],
)
def test_labels_that_are_not_the_classes_of_the_classifier_are_refused(files, labels, message):
    dataset = ImageDataset(torch.zeros(20, 1, 8, 8), labels)
    text = f"cla=0.9:{files['conv']}"
    with pytest.raises(ValueError, match=message):
        check_networks([text], [build_constraint(text)], dataset, "mine")
    text = f"fre=0.3:{files['conv']}"
    check_networks([text], [build_constraint(text)], dataset, "mine")  # features need no labels


def test_a_handful_of_examples_need_not_show_every_class(files):
    dataset = ImageDataset(torch.zeros(7, 1, 8, 8), torch.tensor([0, 3, 5, 1, 1, 2, 0]))
    assert number_of_classes(dataset) == 6
    text = f"cla=0.9:{files['conv']}"
    check_networks([text], [build_constraint(text)], dataset, "micro")


def test_a_run_with_both_resumes_bit_for_bit_from_another_folder(tmp_path, files, monkeypatch):
    monkeypatch.chdir(files["conv"].parent)
    settings = tiny_settings(constraints=("re=0.3", "cla=0.9:conv.pt", "fre=0.9:resnet.pt"), steps=8)
    start(settings, tmp_path / "straight").train()
    train_until(start(settings, tmp_path / "run"), 3)
    monkeypatch.chdir(tmp_path)
    resume(tmp_path / "run").train()
    assert_same_end(tmp_path / "run", tmp_path / "straight")
    run = geco_ext.load_run(tmp_path / "run")
    assert run.criterion.names == ("reconstruction_error", "classification_accuracy", "feature_reconstruction_error")
    x = torch.rand(2, 1, 8, 8)
    output = run.model(x)
    assert torch.isfinite(run.criterion(output.x_hat, x, output.kl, labels=torch.tensor([1, 2])))


def test_a_classifier_that_was_removed_since_is_named(tmp_path, files):
    file = tmp_path / "conv.pt"
    shutil.copy(files["conv"], file)
    start(tiny_settings(constraints=(f"cla=0.9:{file}",), steps=1), tmp_path / "run").train()
    file.unlink()
    with pytest.raises(ValueError, match=r"no classifier checkpoint .*conv\.pt"):
        geco_ext.load_run(tmp_path / "run")

"""Bad input: a clear error that names the argument, and no state changed."""

import functools
import math
import warnings

import elementwise
import pytest
import torch

import geco_ext
from geco_ext import (
    ClassificationAccuracy,
    FeatureReconstructionError,
    GECOLoss,
    LocalStatistics,
    MultiplierUpdate,
    PatchNCC,
    ReconstructionError,
    StructuralSimilarity,
)
from geco_ext import functional as gf

CLASSIFIER = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))


class Flat(geco_ext.Constraint):
    def __init__(self, attribute, value):
        super().__init__()
        setattr(self, attribute, value)


SETTINGS = {
    "kappa nan": (lambda: ReconstructionError(math.nan), "kappa: got nan"),
    "kappa inf": (lambda: LocalStatistics(math.inf, 3), "kappa: got inf"),
    "kappa not a number": (lambda: ReconstructionError("loose"), "kappa: got 'loose'"),
    "kappa unread": (lambda: ReconstructionError("0.1"), "kappa: got '0.1', expected a finite number"),
    "alpha unread": (lambda: GECOLoss([ReconstructionError(0.1)], alpha="0.9"), "alpha: got '0.9'"),
    "init unread": (lambda: GECOLoss([ReconstructionError(0.1)], multiplier_init="2.0"), "multiplier_init: got '2.0'"),
    "bounds unread": (
        lambda: GECOLoss([ReconstructionError(0.1)], multiplier_bounds=[("0.1", "2")]),
        r"multiplier_bounds: got \('0.1', '2'\)",
    ),
    "ncc kappa low": (lambda: PatchNCC(-1.0, 4), r"kappa: got -1.0, expected a number in \(-1, 1\]"),
    "ncc kappa high": (lambda: PatchNCC(1.1, 4), "kappa: got 1.1"),
    "statistics of zero": (lambda: LocalStatistics(0.0, 3), "a scale, which is 0 here"),
    "features of zero": (lambda: FeatureReconstructionError(0.0, CLASSIFIER), "a scale, which is 0 here"),
    "full correlation": (lambda: PatchNCC(1.0, 4), "kappa: got 1.0, expected .*a scale, which is 0 here"),
    "full similarity": (lambda: StructuralSimilarity(1.0, 4), "a scale, which is 0 here"),
    "certainty": (lambda: ClassificationAccuracy(1.0, CLASSIFIER), "a scale, which is 0 here"),
    "probability high": (
        lambda: ClassificationAccuracy(1.5, CLASSIFIER),
        r"kappa: got 1.5, expected a number in \[0, 1\]",
    ),
    "probability low": (lambda: ClassificationAccuracy(-0.5, CLASSIFIER), "kappa: got -0.5"),
    "classifier": (lambda: ClassificationAccuracy(0.5, 3), "classifier: got int"),
    "extractor": (lambda: FeatureReconstructionError(0.5, None), "extractor: got NoneType"),
    "patch size": (lambda: PatchNCC(0.9, 0), "patch_size: got 0"),
    "patch size float": (lambda: PatchNCC(0.9, 2.5), "patch_size: got 2.5"),
    "stride": (lambda: LocalStatistics(0.1, 3, stride=0), "stride: got 0"),
    "eps": (lambda: PatchNCC(0.9, 3, eps=0.0), "eps: got 0.0"),
    "eps negative": (lambda: LocalStatistics(0.1, 3, eps=-1e-5), "eps: got -1e-05"),
    "a number": (
        lambda: GECOLoss(0.1),
        r"constraints: got 0.1, expected .*GECOLoss\(geco_ext.ReconstructionError\(kappa=0.1\)\)",
    ),
    "numbers": (lambda: GECOLoss([0.2]), r"constraints: got 0.2, expected .*ReconstructionError\(kappa=0.2\)"),
    "a text": (lambda: GECOLoss("re=0.1"), "constraints: got 're=0.1', expected .*ReconstructionError"),
    "nothing": (lambda: GECOLoss(None), "constraints: got NoneType"),
    "scale": (lambda: GECOLoss([Flat("scale", -1.0)]), "scale of constraint 'flat': got -1.0"),
    "natural multiplier": (
        lambda: GECOLoss([Flat("natural_multiplier", -1.0)]),
        "natural_multiplier of constraint 'flat'",
    ),
    "no constraints": (lambda: GECOLoss([]), "constraints: got none"),
    "not a constraint": (lambda: GECOLoss([torch.nn.ReLU()]), "constraints: got ReLU"),
    "same names": (lambda: GECOLoss([ReconstructionError(0.1)] * 2), "name 'reconstruction_error' more than once"),
    "alpha one": (lambda: GECOLoss([ReconstructionError(0.1)], alpha=1.0), "alpha: got 1.0"),
    "alpha negative": (lambda: GECOLoss([ReconstructionError(0.1)], alpha=-0.1), "alpha: got -0.1"),
    "bounds order": (
        lambda: GECOLoss([ReconstructionError(0.1)], multiplier_bounds=(2.0, 1.0)),
        "multiplier_bounds: got",
    ),
    "bounds zero": (
        lambda: GECOLoss([ReconstructionError(0.1)], multiplier_bounds=(0.0, 1.0)),
        "multiplier_bounds: got",
    ),
    "bounds count": (
        lambda: GECOLoss([ReconstructionError(0.1)], multiplier_bounds=[(1.0, 2.0)] * 2),
        "multiplier_bounds: got 2 entries",
    ),
    "init": (lambda: GECOLoss([ReconstructionError(0.1)], multiplier_init=0.0), "multiplier_init: got 0.0"),
    "init count": (lambda: GECOLoss([ReconstructionError(0.1)], multiplier_init=[1.0, 2.0]), "multiplier_init: got 2"),
    "init word": (lambda: GECOLoss([ReconstructionError(0.1)], multiplier_init="big"), "multiplier_init: got 'big'"),
    "accumulation": (lambda: GECOLoss([ReconstructionError(0.1)], accumulation_steps=0), "accumulation_steps: got 0"),
    "update": (lambda: GECOLoss([ReconstructionError(0.1)], update=0.1), "update: got float"),
    "lr": (lambda: MultiplierUpdate(lr=-1.0), "lr: got -1.0"),
    "proportional": (lambda: MultiplierUpdate(proportional=math.nan), "proportional: got nan"),
    "violation": (lambda: MultiplierUpdate(violation="squared"), "violation: got 'squared'"),
    "max violation": (lambda: MultiplierUpdate(max_violation=0.0), "max_violation: got 0.0"),
    "backend name": (lambda: geco_ext.use_backend("cudnn").__enter__(), "backend: got 'cudnn'"),
}
for row in elementwise.TABLE:
    for arguments in ({"kappa": -0.1}, {"reduction": "max"}, {"channels": 0}, *row.refused):
        ((name, value),) = arguments.items()
        SETTINGS[f"{row.kind} {name} {value}"] = (
            functools.partial(row.constraint, **{"kappa": 0.1, **arguments}),
            f"^{name}: got {value!r}, expected",
        )
    SETTINGS[f"{row.kind} of zero"] = (
        functools.partial(row.constraint, 0),
        "^kappa: got 0, expected .*a scale, which is 0",
    )


@pytest.mark.parametrize("case", SETTINGS)
def test_bad_settings(case):
    make, message = SETTINGS[case]
    with pytest.raises(ValueError, match=message):
        make()


def test_a_misspelt_argument_names_the_class_that_was_called():
    network = torch.nn.Flatten()
    for kind, others in (
        *[(row.constraint, {}) for row in elementwise.TABLE],
        *[(kind, {"patch_size": 3}) for kind in (PatchNCC, LocalStatistics, StructuralSimilarity)],
        (FeatureReconstructionError, {"extractor": network}),
        (ClassificationAccuracy, {"classifier": network}),
    ):
        with pytest.raises(TypeError, match=rf"^{kind.__name__}\.__init__\(\) got .* 'kapa'"):
            kind(kapa=0.1, **others)


def x(*shape, dtype=torch.float32, device=None):
    return torch.zeros(shape, dtype=dtype, device=device)


IMAGE = (2, 1, 8, 8)
META, U8 = torch.device("meta"), torch.uint8
KL = torch.zeros(2)
LABELS = torch.tensor([1, 2])

CALLS = {
    "shapes": (ValueError, "x_hat and x: got shapes", (x(2, 1, 8, 8), x(2, 1, 8, 7), KL, LABELS)),
    "broadcast": (ValueError, "x_hat and x: got shapes", (x(2, 1, 8, 8), x(1, 1, 8, 8), KL, LABELS)),
    "rank": (ValueError, "x_hat: got shape \\(2, 8, 8\\)", (x(2, 8, 8), x(2, 8, 8), KL, LABELS)),
    "empty batch": (ValueError, "empty shape", (x(0, 1, 8, 8), x(0, 1, 8, 8), x(0), LABELS)),
    "no pixels": (ValueError, "empty shape", (x(2, 1, 0, 8), x(2, 1, 0, 8), KL, LABELS)),
    "integer prediction": (
        TypeError,
        "x_hat: got dtype torch.uint8",
        (x(*IMAGE, dtype=torch.uint8), x(*IMAGE), KL, LABELS),
    ),
    "integer target": (TypeError, "x: got dtype torch.int64", (x(*IMAGE), x(*IMAGE, dtype=torch.int64), KL, LABELS)),
    "not a tensor": (TypeError, "x: got list", (x(*IMAGE), [0.0], KL, LABELS)),
    "devices": (ValueError, "got devices", (x(*IMAGE), x(*IMAGE, device="meta"), KL, LABELS)),
    "criterion device": (
        ValueError,
        "the criterion is on cpu",
        (x(*IMAGE, device=META), x(*IMAGE, device=META), x(2, device=META), LABELS),
    ),
    "kl shape": (ValueError, "kl: got shape \\(3,\\)", (x(*IMAGE), x(*IMAGE), x(3), LABELS)),
    "kl matrix": (ValueError, "kl: got shape \\(2, 2\\)", (x(*IMAGE), x(*IMAGE), x(2, 2), LABELS)),
    "kl row": (ValueError, "kl: got shape \\(1, 2\\)", (x(*IMAGE), x(*IMAGE), x(1, 2), LABELS)),
    "kl type": (TypeError, "kl: got float", (x(*IMAGE), x(*IMAGE), 0.0, LABELS)),
    "kl integers": (TypeError, "kl: got dtype", (x(*IMAGE), x(*IMAGE), torch.zeros(2, dtype=torch.int64), LABELS)),
    "patch too large": (ValueError, "patch_size: got 5", (x(2, 1, 16, 4), x(2, 1, 16, 4), KL, LABELS)),
    "channels": (ValueError, "expected 1 channels", (x(2, 3, 8, 8), x(2, 3, 8, 8), KL, LABELS)),
    "labels missing": (ValueError, "labels: got None", (x(*IMAGE), x(*IMAGE), KL, None)),
    "labels float": (ValueError, "labels: got dtype", (x(*IMAGE), x(*IMAGE), KL, torch.zeros(2))),
    "labels shape": (ValueError, "labels: got shape", (x(*IMAGE), x(*IMAGE), KL, torch.zeros(3, dtype=torch.int64))),
    "labels list": (ValueError, "labels: got list", (x(*IMAGE), x(*IMAGE), KL, [1, 2])),
    "labels range": (ValueError, "labels: got values from 1 to 10", (x(*IMAGE), x(*IMAGE), KL, torch.tensor([1, 10]))),
    "labels negative": (ValueError, "labels: got values from -1", (x(*IMAGE), x(*IMAGE), KL, torch.tensor([-1, 3]))),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CALLS)
def test_bad_calls_leave_the_state_as_it_is(case, training):
    kind, message, arguments = CALLS[case]
    criterion = GECOLoss(
        [
            ReconstructionError(0.1, channels=1),
            PatchNCC(0.9, patch_size=5),
            ClassificationAccuracy(0.5, CLASSIFIER),
        ],
        multiplier_init=1.0,
    ).train(training)
    criterion.train()
    criterion(x(*IMAGE), x(*IMAGE), KL, LABELS)
    criterion.train(training)
    before = criterion._block.clone()
    with pytest.raises(kind, match=message):
        criterion(*arguments)
    assert torch.equal(criterion._block.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize(
    "case", [case for case in CALLS if not case.startswith(("labels", "patch", "channels", "rank"))]
)
def test_bad_calls_of_a_criterion_of_images_alone(case):
    """The short way that such a criterion takes on the CPU refuses the same."""
    kind, message, arguments = CALLS[case]
    criterion = GECOLoss([ReconstructionError(0.1)])
    criterion(x(*IMAGE), x(*IMAGE), KL)
    before = criterion._block.clone()
    with pytest.raises(kind, match=message):
        criterion(*arguments)
    assert torch.equal(criterion._block.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize(
    "mask",
    [x(*IMAGE), x(*IMAGE).bool(), x(*IMAGE).long(), x(2, 8, 8), KL],
    ids=lambda mask: f"{mask.dtype} {tuple(mask.shape)}",
)
@pytest.mark.parametrize("constraint", [lambda: ReconstructionError(0.1), lambda: Flat("scale", 1.0)])
def test_weights_in_the_place_of_labels_are_refused(mask, constraint):
    """Nothing else would say that they are ignored. Labels that nobody reads are given by loops that know no better."""
    image, criterion = x(*IMAGE), GECOLoss(constraint(), multiplier_init=1.0)
    before = criterion._block.clone()
    message = rf"^labels: got dtype {mask.dtype} of shape \({mask.shape[0]}.*integers \[2\]; .* by name, weight="
    for call in (criterion, criterion.evaluate):
        with pytest.raises(ValueError, match=message):
            call(image, image, KL, mask)
    with pytest.raises(ValueError, match=message):
        ReconstructionError(0.1)(image, image, mask)
    assert torch.equal(criterion._block.nan_to_num(), before.nan_to_num())
    for several_or_none in (LABELS, torch.stack([LABELS] * 3, 1), None):
        GECOLoss(ReconstructionError(0.1))(image, image, KL, several_or_none)


def test_functionals_check_as_the_criterion_does():
    image = torch.rand(2, 1, 8, 8)
    for call, message in (
        (lambda: gf.reconstruction_error(image, image[:1], kappa=0.1), "prediction and target: got shapes"),
        (lambda: gf.reconstruction_error(image, image, kappa=-1), "kappa: got -1"),
        (lambda: gf.reconstruction_error(image, image, kappa=0.1, reduction="none"), "reduction: got 'none'"),
        (lambda: gf.reconstruction_error(image, image, kappa=0.1, channels=3), "expected 3 channels"),
        (lambda: gf.patch_ncc(image[0], image[0], kappa=0.9, patch_size=3), r"expected \[B, C, H, W\]"),
        (lambda: gf.patch_ncc(image, image, kappa=0.9, patch_size=9), "patch_size: got 9"),
        (lambda: gf.local_statistics(image, image, kappa=0.9, patch_size=3, eps=0), "eps: got 0"),
        (lambda: gf.feature_reconstruction_error((image, image), image, kappa=0.1), "got 1 feature maps, expected 2"),
        (lambda: gf.feature_reconstruction_error((), (), kappa=0.1), "prediction: got an empty sequence"),
        (lambda: gf.classification_accuracy(image, LABELS, kappa=0.1), r"expected \[2, classes\]"),
        (
            lambda: gf.classification_accuracy(image.view(2, 64), LABELS, kappa=0.1, gradient="log"),
            "gradient: got 'log', expected 'probability' or 'log_probability'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="prediction: got dtype torch.int64"):
        gf.reconstruction_error(image.long(), image, kappa=0.1)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (1.0, TypeError, "forward returned float"),
        (torch.ones(2, 3), ValueError, "forward returned shape"),
        (torch.ones(2, dtype=torch.int64), TypeError, "forward returned torch.int64"),
        (torch.ones(2, device="meta"), ValueError, "forward returned a tensor on meta"),
    ],
)
def test_a_custom_constraint_that_returns_something_else(value, kind, message):
    class Custom(geco_ext.Constraint):
        def forward(self, x_hat, x, labels=None):
            return value

    criterion = GECOLoss([Custom()])
    with pytest.raises(kind, match=message):
        criterion(x(*IMAGE), x(*IMAGE), KL)
    with pytest.raises(NotImplementedError, match="must define forward"):
        geco_ext.Constraint()(x(*IMAGE), x(*IMAGE))


def test_a_backend_that_cannot_run_names_the_reason():
    for name, available, reason in geco_ext.ops.dispatch.describe():
        if not available:
            with pytest.raises(RuntimeError, match=f"backend '{name}' cannot run here"), geco_ext.use_backend(name):
                pass
            assert reason


def test_a_backend_that_cannot_serve_a_call_says_so(monkeypatch):
    image = x(*IMAGE)
    if "cpu" in geco_ext.available_backends():
        with geco_ext.use_backend("cpu"), pytest.raises(RuntimeError, match="'cpu' cannot serve this call"):
            gf.reconstruction_error(torch.zeros([1] * 9), torch.zeros([1] * 9), kappa=0.1)
    monkeypatch.setenv("GECO_EXT_BACKEND", "abacus")
    with pytest.raises(ValueError, match="backend: got 'abacus', expected one of"):
        gf.reconstruction_error(image, image, kappa=0.1)
    monkeypatch.setenv("GECO_EXT_BACKEND", "reference")
    gf.reconstruction_error(image, image, kappa=0.1)


def test_a_backend_that_the_environment_names_and_that_cannot_run_here(monkeypatch, tmp_path, capsys):
    """It is known: the command says why it is not available, as one line that tells of no error of its own."""
    pytest.importorskip("lightning")
    from geco_ext.cli import main

    reasons = {"cuda": "no abacus"}
    monkeypatch.setattr(geco_ext.ops.dispatch, "unavailable", reasons.get)
    monkeypatch.setenv("GECO_EXT_BACKEND", "cuda")
    said = "environment variable GECO_EXT_BACKEND: backend 'cuda' cannot run here: no abacus"
    with pytest.raises(RuntimeError, match=said):
        gf.reconstruction_error(x(*IMAGE), x(*IMAGE), kappa=0.1)
    assert main(["train", "--size", "8", "--accelerator", "cpu", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == f"geco: error: {said}\n"
    assert main(["info"]) == 0
    assert "no call: GECO_EXT_BACKEND asks for cuda, which is not available" in capsys.readouterr().out


@pytest.mark.parametrize("constraint", [lambda: ReconstructionError(0.1), lambda: PatchNCC(0.9, 3)])
def test_images_in_the_wrong_order_are_said_once(constraint):
    """A model's output where the data belong; in eval mode, and where both require a gradient, nothing is wrong."""
    x, x_hat, kl = torch.rand(2, 1, 6, 6), torch.rand(2, 1, 6, 6, requires_grad=True), torch.ones(2)
    criterion = GECOLoss(constraint())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        criterion(x_hat, x, kl)
        criterion(x_hat, x_hat * 0.5, kl)
        criterion.eval()(x, x_hat, kl)
        criterion.train()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            criterion(x, x_hat, kl).backward()
    (warning,) = caught
    assert "are they swapped" in str(warning.message)
    assert warning.filename == __file__

import math
import textwrap

import pytest

import geco_ext
from geco_ext.training.constraints import build_constraint, build_constraints, with_absolute_file

OWN_CONSTRAINT = """
    import geco_ext

    class Brightness(geco_ext.Constraint):
        def forward(self, x_hat, x, labels=None):
            return (x_hat.mean((1, 2, 3)) - x.mean((1, 2, 3))).abs() - self.kappa

    class Fussy(geco_ext.Constraint):
        def __init__(self):
            super().__init__()

    class NoConstraint:
        pass
"""


@pytest.fixture
def own_file(tmp_path):
    file = tmp_path / "brightness_constraint.py"
    file.write_text(textwrap.dedent(OWN_CONSTRAINT))
    return file


@pytest.mark.parametrize(
    ("text", "cls", "kappa", "patch_size"),
    [
        ("re=0.1", geco_ext.ReconstructionError, 0.1, None),
        ("pncc=0.9", geco_ext.PatchNCC, 0.9, 8),
        ("pncc=-0.5:4", geco_ext.PatchNCC, -0.5, 4),
        ("local=0.05:3", geco_ext.LocalStatistics, 0.05, 3),
    ],
)
def test_known_constraints(text, cls, kappa, patch_size):
    constraint = build_constraint(text)
    assert type(constraint) is cls
    assert constraint.kappa == kappa
    assert getattr(constraint, "patch_size", None) == patch_size


def test_patch_constraints_of_one_class_are_told_apart():
    names = [constraint.name for constraint in build_constraints(["pncc=0.9:4", "re=0.1", "pncc=0.8:8"])]
    assert names == ["patch_ncc_4", "reconstruction_error", "patch_ncc_8"]
    with pytest.raises(ValueError, match="reconstruction_error is asked for more than once"):
        build_constraints(["re=0.1", "re=0.2"])


def test_a_class_of_ones_own_from_a_file_and_from_a_module(own_file, monkeypatch):
    assert build_constraint(f"{own_file}:Brightness=0.05").kappa == 0.05
    assert build_constraint(f"{own_file}:Brightness").kappa == 0
    monkeypatch.syspath_prepend(own_file.parent)
    assert build_constraint("brightness_constraint:Brightness=0.2").name == "brightness"


def test_a_file_is_remembered_by_its_absolute_path(own_file, monkeypatch):
    monkeypatch.chdir(own_file.parent)
    assert with_absolute_file(f"{own_file.name}:Brightness=0.1") == f"{own_file}:Brightness=0.1"
    assert with_absolute_file("re=0.1") == "re=0.1"
    assert with_absolute_file("package.module:Class") == "package.module:Class"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope=1", "unknown constraint 'nope=1'; known are re=KAPPA, pncc"),
        ("re", "kappa must be a number, got ''"),
        ("re=abc", "kappa must be a number, got 'abc'"),
        ("re=-1", "constraint 're=-1': kappa"),
        (f"re={math.nan}", "constraint 're=nan': kappa"),
        ("re=0.1:8", "re takes no patch size"),
        ("pncc=0.9:x", "the patch size must be an integer, got 'x'"),
        ("pncc=0.9:0", "constraint 'pncc=0.9:0': patch_size"),
        ("json:dumps", "json has no geco_ext.Constraint subclass 'dumps'"),
        ("no_such_module:Class", "cannot import 'no_such_module'"),
        ("no/such/file.py:Class", "no file no/such/file.py"),
    ],
)
def test_a_wrong_constraint_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        build_constraint(text)


def test_unusable_classes_are_named(own_file):
    with pytest.raises(ValueError, match=r"no geco_ext\.Constraint subclass 'NoConstraint'"):
        build_constraint(f"{own_file}:NoConstraint")
    with pytest.raises(ValueError, match=r"Fussy\.__init__"):
        build_constraint(f"{own_file}:Fussy=0.1")
    own_file.write_text("1 / 0")
    with pytest.raises(ValueError, match="fails \\(ZeroDivisionError"):
        build_constraint(f"{own_file}:Brightness")

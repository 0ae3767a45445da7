import math
import re
import textwrap
import warnings

import pytest
from tiny_runs import one_line, tiny_settings

import geco_ext
from geco_ext.cli import main
from geco_ext.training.constraints import build_constraint, build_constraints, with_changed_files

OWN_CONSTRAINT = """
    import geco_ext

    class Brightness(geco_ext.Constraint):
        def forward(self, x_hat, x, labels=None):
            return (x_hat.mean((1, 2, 3)) - x.mean((1, 2, 3))).abs() - self.kappa

    class Fussy(geco_ext.Constraint):
        def __init__(self):
            super().__init__()

    class Forgetful(geco_ext.Constraint):
        def __init__(self, kappa=0.1):
            pass

    class Impossible(geco_ext.Constraint):
        def __init__(self):
            raise RuntimeError("no way")

    class Fails(Brightness):
        def forward(self, x_hat, x):
            raise RuntimeError("no way")

    class Margin(Brightness):
        scale = 0.5

    class Usual(Brightness):
        kappa = 0.2

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
        ("ReconstructionError(0.1)", geco_ext.ReconstructionError, 0.1, None),
        ("PatchNCC(kappa=-0.5, patch_size=4)", geco_ext.PatchNCC, -0.5, 4),
        (" LocalStatistics( 0.05,\n patch_size = 3 ) ", geco_ext.LocalStatistics, 0.05, 3),
    ],
)
def test_known_constraints(text, cls, kappa, patch_size):
    constraint = build_constraint(text)
    assert type(constraint) is cls
    assert constraint.kappa == kappa
    assert getattr(constraint, "patch_size", None) == patch_size


def test_a_call_has_every_argument_of_the_class():
    constraint = build_constraint("PatchNCC(0.9, 4, stride=2, eps=1e-3, per_channel=True, name='sharp')")
    assert (constraint.stride, constraint.eps, constraint.per_channel, constraint.name) == (2, 1e-3, True, "sharp")
    assert len(geco_ext.GECOLoss([build_constraint("ReconstructionError(0.1, channels=3)")]).names) == 3


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
    assert build_constraint("brightness_constraint:Brightness(kappa=0.2, name='light')").name == "light"
    assert build_constraint(f"{own_file}:Brightness()").kappa == 0


def test_a_place_may_have_any_characters(tmp_path):
    file = tmp_path / "a (1):b=c,d" / "own.py"
    file.parent.mkdir()
    file.write_text(textwrap.dedent(OWN_CONSTRAINT))
    for arguments in ("=0.1", "(0.1)", "(kappa=0.1, name='a:b(c)')", "(0.1, name='(a.py=1')"):
        assert build_constraint(f"{file}:Brightness{arguments}").kappa == 0.1


def test_a_file_is_remembered_by_its_absolute_path(own_file, monkeypatch):
    monkeypatch.chdir(own_file.parent)
    assert with_changed_files(f"{own_file.name}:Brightness=0.1") == f"{own_file}:Brightness=0.1"
    assert with_changed_files(f"{own_file.name}:Brightness(0.1, name='x')") == f"{own_file}:Brightness(0.1, name='x')"
    assert with_changed_files("re=0.1") == "re=0.1"
    for text in ("PatchNCC(0.9, patch_size=4)", "package.module:Class(1)", "PatchNCC(x)", "nope(1)", "a:b)"):
        assert with_changed_files(text) == text
    assert with_changed_files("package.module:Class") == "package.module:Class"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope=1", "unknown constraint 'nope=1'; known are re, pncc"),
        ("re", "kappa must be a number, got ''"),
        ("re=abc", "kappa must be a number, got 'abc'"),
        ("re=-1", "constraint 're=-1': kappa"),
        (f"re={math.nan}", "constraint 're=nan': kappa"),
        ("re=0.1:8", "re takes no patch size"),
        ("pncc=0.9:x", "the patch size must be an integer, got 'x'"),
        ("pncc=0.9:0", "constraint 'pncc=0.9:0': patch_size"),
        ("json:dumps", "'dumps' in json is no subclass of geco_ext.Constraint"),
        ("no_such_module:Class", "cannot import 'no_such_module'"),
        ("no/such/file.py:Class", "no file no/such/file.py"),
        ("no/such/file.py:Class()", "no file no/such/file.py"),
        ("Nope(kappa=1)", r"unknown constraint 'Nope\(kappa=1\)'; known are re, .*PatchNCC"),
        ("PatchNCC(0.9", r"a bracket is not closed; did you mean 'PatchNCC\(0.9\)'\?$"),
        ("PatchNCC(kappa=0.9", r"a bracket is not closed; did you mean 'PatchNCC\(kappa=0.9\)'\?$"),
        ("no.py:Own(0.1, name='a=b'", "a bracket is not closed"),
        ("no/such/file.py", "constraint 'no/such/file.py': no file no/such/file.py"),
        ("PatchNCC(0.9, )4)", "it cannot be read as a call"),
        ("PatchNCC(0.9)(4)", "it cannot be read as a call"),
        ("__import__('os').getcwd()", "it cannot be read as a call"),
        ("PatchNCC(0.9, patch_size=side)", "patch_size must be a literal, .*, got side"),
        ("PatchNCC(print(1))", r"argument 1 must be a literal, .*, got print\(1\)"),
        ("PatchNCC(**{'kappa': 1})", "each argument has a name of its own"),
        ("PatchNCC(0.9)", "patch_size.*; the arguments of PatchNCC are kappa, patch_size, stride"),
        ("PatchNCC(0.9, patch=4)", "'patch'; the arguments of PatchNCC are kappa, patch_size, stride"),
        ("PatchNCC(0.9, patch_size=0)", "patch_size: got 0"),
        ("ReconstructionError('a')", "kappa: got 'a', expected a finite number"),
        ("ClassificationAccuracy(0.9)", "'classifier'; the arguments of ClassificationAccuracy are kappa, classifier"),
        ("ClassificationAccuracy(0.9, 'no.pt')", "no classifier checkpoint no.pt"),
    ],
)
def test_a_wrong_constraint_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        build_constraint(text)


@pytest.mark.parametrize("text", ["nope=1", "re2=0.1", "Nope(1)", "re=x", "PatchNCC(0.9)(4)", "PatchNC(0.9)"])
def test_what_is_unknown_takes_two_lines_of_a_terminal_at_most_and_says_where_all_are(text):
    with pytest.raises(ValueError, match="geco list constraints says what there is and how it is written") as refused:
        build_constraint(text)
    assert len(str(refused.value)) < 320


def test_a_file_without_its_class_is_told_which_it_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.py").write_text("raise SystemExit\nclass Own: pass\n")  # read, not run
    (tmp_path / "two.py").write_text("class First: pass\nclass Second: pass\n")
    (tmp_path / "broken.py").write_text("class First(\n")
    for text, lacking in {
        "one.py": "name the class, one.py:Own",
        "one.py=0.1": "name the class, one.py:Own=0.1",
        "one.py:": "name the class, one.py:Own",
        "one.py(0.1)": "name the class, one.py:Own(0.1)",
        "two.py": "name the class, two.py:Class; its classes are First, Second",
        "broken.py": "name the class, broken.py:Class",
    }.items():
        with pytest.raises(ValueError, match=f": {re.escape(lacking)}$"):
            build_constraint(text)


def test_unusable_classes_are_named(own_file):
    with pytest.raises(ValueError, match=r"'NoConstraint' in .* is no subclass of geco_ext\.Constraint"):
        build_constraint(f"{own_file}:NoConstraint")
    with pytest.raises(ValueError, match=r"Fussy\.__init__"):
        build_constraint(f"{own_file}:Fussy=0.1")
    own_file.write_text("1 / 0")
    with pytest.raises(ValueError, match="fails \\(ZeroDivisionError"):
        build_constraint(f"{own_file}:Brightness")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "Forgetful",
            "constraint Forgetful: its __init__ has not called that of Constraint; write super().__init__(kappa)",
        ),
        ("Impossible", "it cannot be made (RuntimeError: no way)"),
        ("Fails=0.1", "fails (RuntimeError: no way)"),
    ],
)
def test_what_fails_in_code_of_ones_own_is_one_line(own_file, tmp_path, capsys, name, message):
    pytest.importorskip("lightning")
    run = tmp_path / "run"
    options = ["--size", "8", "--steps", "1", "--accelerator", "cpu", "--out", str(run)]
    assert main(["train", *options, "--constraint", f"{own_file}:{name}"]) == 2
    error = one_line(capsys.readouterr())
    assert message in error
    assert f"constraint '{own_file}:{name}'" in error
    assert "unexpected" not in error
    assert not run.exists()


@pytest.mark.parametrize(
    ("name", "is_said"),
    [
        *[(f"Brightness{text}", True) for text in ("", "()", "(name='light')")],
        *[(f"Brightness{text}", False) for text in ("=0", "(kappa=0)", "=0.1")],
        *[("Margin", False), ("Usual", False)],
    ],
)
def test_a_tolerance_that_nobody_has_given_is_said(own_file, tmp_path, capsys, name, is_said):
    pytest.importorskip("lightning")
    from geco_ext.training.session import start

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start(tiny_settings(constraints=(f"{own_file}:{name}",)), tmp_path / "run")
    messages = [str(warning.message) for warning in caught if "has kappa 0" in str(warning.message)]
    assert len(messages) == is_said
    assert all("Brightness=0.1 or (kappa=0.1)" in message for message in messages)

"""What the compiled kernels and Python both list says the same on both sides."""

import pytest
import torch

from geco_ext import state
from geco_ext.backends import native
from geco_ext.contract import KINDS

COMPILED, REASON = native.extension()

pytestmark = pytest.mark.skipif(REASON is not None, reason="needs the compiled extension")


def in_order(numbers: dict[str, int]) -> tuple[str, ...]:
    """Names in the order of their numbers, which are 0, 1, ..."""
    names = tuple(sorted(numbers, key=numbers.__getitem__))
    assert [numbers[name] for name in names] == list(range(len(names)))
    return names


def test_kinds_of_constraint():
    assert tuple(kind["name"] for kind in COMPILED.kinds) == in_order(native.TERM_KINDS)
    for kind in COMPILED.kinds:
        expected = KINDS[kind["name"]]
        assert (kind["scale_rule"], kind["elements"], kind["windowed"]) == expected


def test_scale_rules_decide_on_the_sign():
    """A larger correlation or probability satisfies its constraint, a smaller error does."""
    assert {kind["name"]: kind["sign"] for kind in COMPILED.kinds} == {
        "squared_error": 1,
        "absolute_error": 1,
        "scalar_similarity": -1,
        "scalar": 1,
        "patch_ncc": -1,
        "local_statistics": 1,
        "structural_similarity": -1,
    }
    assert COMPILED.scale_rules == in_order(native.SCALE_RULES)


def test_violations_state_and_types():
    assert COMPILED.violations == in_order(native.VIOLATIONS)
    assert COMPILED.state_rows == state.ROWS
    assert COMPILED.counters == state.COUNTERS
    assert tuple(getattr(torch, name) for name in COMPILED.data_types) == tuple(native.DTYPES)


def test_a_scale_rule_of_another_kind_is_refused():
    one_minus_kappa = native.SCALE_RULES["1-kappa"]
    with pytest.raises(ValueError, match="scale rule"):
        COMPILED.ConstraintVector().add(0, 1, [0], True, one_minus_kappa, 1, 1, 0.0, False)


def test_a_constraint_reads_what_is_there():
    """Operators can be called with any lists."""
    own = native.SCALE_RULES["own"]
    scalar = native.TERM_KINDS["scalar"]
    with pytest.raises(ValueError, match="without inputs"):
        COMPILED.ConstraintVector().add(scalar, 1, [], True, own, 1, 1, 0.0, False)
    numbers, block = torch.rand(3, 4), state.new_block(1)
    for terms, owners in (("scalar on_image=False", [0]), ("scalar", [0])):  # of two dimensions; of nobody
        arguments = ([numbers], [None], [None], None, block, terms, owners, [], [False, False], 3, 4)
        with pytest.raises(ValueError, match="scalar constraint|without inputs"):
            torch.ops.geco_ext.evaluation_loss.default(*arguments)

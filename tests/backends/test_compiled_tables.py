"""What the compiled kernels and Python both list says the same on both sides."""

from types import SimpleNamespace

import pytest
import torch

from geco_ext import state
from geco_ext.backends import native
from geco_ext.contract import KINDS

COMPILED, REASON = native.extension()

pytestmark = pytest.mark.skipif(REASON is not None, reason="needs the compiled extension")


def test_tables_are_the_same():
    assert native.differing_tables(COMPILED) == ""
    assert len(COMPILED.kinds) == len(KINDS)
    for numbers in (native.TERM_KINDS, native.SCALE_RULES, native.VIOLATIONS):
        assert list(numbers.values()) == list(range(len(numbers)))


@pytest.mark.parametrize(
    "table", ["kinds", "scale_rules", "violations", "state_rows", "counters", "data_types", "multiplier_bounds"]
)
def test_an_extension_of_other_sources_is_not_used(monkeypatch, table):
    """Left from an earlier build, or another checkout's: its numbers would stand for other kinds."""
    other = SimpleNamespace(**{**vars(COMPILED), table: getattr(COMPILED, table)[::-1]})
    monkeypatch.setattr(native, "import_module", lambda name: other)
    compiled, reason = native.extension.__wrapped__()
    assert compiled is None
    assert f"({table} differ)" in reason
    assert COMPILED.__file__ in reason


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

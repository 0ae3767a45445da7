import pytest

from geco_ext.experiments import heat_map, matrix
from geco_ext.experiments.training_cells import TrainingCell


def test_the_matrix_has_every_model_data_set_and_kappa():
    cells = matrix.cells(matrix.parsed([]))
    assert len({cell.name for cell in cells}) == len(cells) == 17 * 5 + 12
    quick = matrix.cells(matrix.parsed(["--quick"]))
    assert len(quick) == 17
    assert all("re=0.1" in cell.arguments for cell in quick)
    conditional = {cell.columns["data"] for cell in cells if cell.columns["model"] == "unconditional-convdraw"}
    assert conditional == {"digits-sum", "digits-sum-hard", "digits-rotate"}


def report(rmse, kl, skipped=0):
    return {
        "rmse": rmse, "kl": kl, "skipped_steps": skipped, "seconds": 1.0, "constraints": [{"multiplier": 5.0}]
    }  # fmt: skip


def rows_of(*cells):
    options = matrix.parsed([])
    return [matrix.row(matrix.cell(*names, options), report(*numbers)) for names, numbers in cells]


@pytest.mark.parametrize(
    ("numbers", "outcome"),
    [
        ((0.1049, 7), "met"),
        ((0.0951, 7), "met"),
        ((0.1051, 7), "above"),
        ((0.0949, 7), "below"),
        ((0.0949, 0.4), "slack"),
        ((0.1, 7, 1), "non-finite"),
    ],
)
def test_how_a_cell_ended(numbers, outcome):
    ((row,),) = [rows_of((("nvp", "digits", "0.1", "geco"), numbers))]
    assert row["outcome"] == outcome


def test_what_a_model_cannot_reach_is_marked(tmp_path):
    rows = rows_of(
        (("nvp", "digits", "0.06", "geco"), (0.09, 30)),
        (("nvp", "digits", "0.1", "geco"), (0.12, 30)),
        (("nvp", "digits", "0.125", "geco"), (0.125, 5)),
        (("nvp", "digits", "", matrix.ALONE), (0.08, 90)),
        (("nvp", "digits", "0.1", "paper:1"), (0.3, 0)),
    )
    matrix.mark_unreachable(rows)
    assert [row["outcome"] for row in rows] == ["unreachable (0.0800)", "above", "met", "", "above"]
    assert matrix.summary(rows) == ("1 of 3 cells met, 1 slack or unreachable; not: nvp digits 0.1 (above, 0.1200)")
    heat_map.draw_heat_map([row for row in rows if row["objective"] == "geco"], tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_reconstruction_alone_and_the_paper_s_rule_are_other_objectives():
    options = matrix.parsed([])
    alone = matrix.cell("nvp", "digits", "", matrix.ALONE, options)
    paper = matrix.cell("nvp", "digits", "0.1", "paper:0.1", options)
    assert "--constraint" not in alone.arguments
    assert paper.arguments[-2:] == ("--objective", "paper:0.1")
    assert isinstance(alone, TrainingCell)

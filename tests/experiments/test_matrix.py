from typing import ClassVar

import pytest

from geco_ext.experiments import heat_map, matrix, matrix_outcomes
from geco_ext.experiments.results_file import ResultsFile
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
    return [matrix_outcomes.row(matrix.cell(*names, options), report(*numbers)) for names, numbers in cells]


@pytest.mark.parametrize(
    ("numbers", "outcome"),
    [
        ((0.1024, 7), "met"),
        ((0.0951, 7), "met"),
        ((0.1026, 7), "above"),
        ((0.0949, 7), "below"),
        ((0.0949, 0.4), "slack"),
        ((0.1, 7, 1), "non-finite"),
    ],
)
def test_how_a_cell_ended(numbers, outcome):
    ((row,),) = [rows_of((("nvp", "digits", "0.1", "geco"), numbers))]
    assert row["outcome"] == outcome


@pytest.mark.parametrize(
    ("reached", "alone", "outcome"),
    [
        ((0.12, 30), (0.115, 90), "unreachable (0.1150)"),
        ((0.12, 30), (0.102, 90), "above"),  # alone it is met
        ((0.14, 30), (0.115, 90), "above"),  # far from what can be reached
        ((0.12, 30), (0.115, 90, 1), "above"),  # alone it did not train either
        ((0.12, 30), (0.14, 90), "above"),  # the other way round
        ((float("nan"), 30), (0.115, 90), "non-finite"),
        ((0.10, 30), (0.115, 90), "met"),
    ],
)
def test_what_a_model_cannot_reach_is_marked(reached, alone, outcome):
    rows = rows_of(
        (("nvp", "digits", "0.1", "geco"), reached),
        (("nvp", "digits", "0.1", "paper:1"), reached),
        (("nvp", "digits", "", matrix_outcomes.ALONE), alone),
        (("nvp", "patches", "", matrix_outcomes.ALONE), (0.115, 90)),
    )
    before = rows[1]["outcome"]
    for _ in range(2):  # marks of an earlier look are not in the way
        matrix_outcomes.mark_unreachable(rows)
        assert rows[0]["outcome"] == outcome
    assert rows[1]["outcome"] == before


class Trained:
    """In place of trainings: what they would report, by model, data, kappa and objective; None: failed."""

    reports: ClassVar[dict] = {}
    trained: ClassVar[list] = []

    def __init__(self, folder, jobs, report):
        pass

    def train(self, cells, finished):
        failed = []
        for cell in cells:
            name = tuple(cell.columns[column] for column in ("model", "data", "kappa", "objective"))
            self.trained.append(name)
            met = (float(cell.columns["kappa"] or 0.05), 5)
            numbers = self.reports.get((*name, cell.columns["steps"]), self.reports.get(name, met))
            if numbers is None:
                failed.append(cell.name)
            else:
                finished(cell, report(*numbers))
        return failed


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command with what trainings report; gives exit code, last line, rows of the CSV and what was trained."""
    monkeypatch.setattr(matrix, "TrainingCells", Trained)

    def run(*arguments, **reports):
        Trained.reports, Trained.trained = {tuple(name.split("/")): numbers for name, numbers in reports.items()}, []
        code = matrix.main(["--output", str(tmp_path), *arguments])
        rows = ResultsFile(tmp_path / "matrix.csv", key=matrix.KEY).rows
        return code, capsys.readouterr().out.strip().splitlines()[-1], rows, Trained.trained

    return run


def test_all_met(run, tmp_path):
    code, line, rows, trained = run()
    assert (code, line) == (0, "85 of 85 cells met, 0 slack, 0 unreachable")
    assert len(rows) == len(trained) == 97
    assert f"**{line}.**" in (tmp_path / "matrix.md").read_text()
    assert (tmp_path / "matrix.png").read_bytes().startswith(b"\x89PNG")
    assert run()[3] == []  # finished cells are not trained again


def test_what_is_not_met_is_said_and_shown(run, tmp_path):
    code, line, rows, trained = run(
        "--quick",
        **{
            "nvp/digits/0.1/geco": (0.2, 3),
            "nvp/patches/0.1/geco": (0.12, 90),
            f"nvp/patches//{matrix_outcomes.ALONE}": (0.115, 90),
            "convdraw/digits-sum/0.1/geco/2000": (0.12, 30),
            "convdraw/patches/0.1/geco": (0.02, 0.3),
            "convdraw/digits/0.1/geco": None,
        },
    )
    assert code == 1
    assert line == (
        "13 of 17 cells met, 1 slack, 1 unreachable; not: nvp digits 0.1 (above, 0.2000), convdraw digits 0.1 "
        "(not trained)"
    )
    assert line in (tmp_path / "matrix.md").read_text()
    assert [name for name in trained if name[3] == matrix_outcomes.ALONE] == [
        ("nvp", "digits", "", matrix_outcomes.ALONE),
        ("nvp", "patches", "", matrix_outcomes.ALONE),
    ]
    assert len(rows) == 16 + 3 + 2  # of 2000 steps, of 3000, alone
    again = {(r["model"], r["data"], r["outcome"]) for r in rows if r["steps"] == "3000" and r["kappa"]}
    assert again == {
        ("nvp", "digits", "above"),
        ("nvp", "patches", "unreachable (0.1150)"),
        ("convdraw", "digits-sum", "met"),
    }


def test_cells_of_other_steps_and_seeds_stay_out_of_the_line_and_the_picture(run, tmp_path):
    run("--quick", "--steps", "5", "--more-steps", "5", **{"nvp/digits/0.1/geco": (0.3, 3)})
    code, line, rows, _ = run("--quick", "--steps", "6", "--more-steps", "6")
    assert (code, line) == (0, "17 of 17 cells met, 0 slack, 0 unreachable")
    assert len(rows) == 17 + 1 + 17
    steps = [
        line.split("|")[5].strip() for line in (tmp_path / "matrix.md").read_text().splitlines() if "geco  " in line
    ]
    assert steps == ["6"] * 17
    assert run("--quick", "--steps", "6", "--seed", "1")[1].startswith("17 of 17")


def test_a_table_of_another_version_is_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(matrix, "TrainingCells", Trained)
    Trained.reports, Trained.trained = {}, []
    table = tmp_path / "matrix.csv"
    table.write_text("model,data,kappa,objective,steps,seed,note\nnvp,digits,0.1,geco,5,0,\n")
    before = table.read_bytes()
    assert matrix.main(["--quick", "--output", str(tmp_path)]) == 2
    assert "has other columns: model, data, kappa, objective, steps, seed, note" in capsys.readouterr().err
    assert table.read_bytes() == before


def test_nothing_trained_draws_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Trained, "train", lambda self, cells, finished: [cell.name for cell in cells])
    assert matrix.main(["--quick", "--output", str(tmp_path)]) == 1
    assert not (tmp_path / "matrix.png").exists()


@pytest.mark.parametrize("steps", ["0", "-3"])
def test_steps_that_are_none(steps, capsys):
    with pytest.raises(SystemExit) as ended:
        matrix.main(["--steps", steps])
    assert ended.value.code == 2
    assert f"--steps: got {steps}, expected at least 1" in capsys.readouterr().err


def test_the_picture(tmp_path):
    rows = rows_of((("nvp", "digits", "0.06", "geco"), (0.09, 30)), (("nvp", "digits", "0.1", "geco"), (0.12, 30)))
    heat_map.draw_heat_map(rows, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_reconstruction_alone_and_the_paper_s_rule_are_other_objectives():
    options = matrix.parsed([])
    alone = matrix.cell("nvp", "digits", "", matrix_outcomes.ALONE, options)
    paper = matrix.cell("nvp", "digits", "0.1", "paper:0.1", options)
    assert "--constraint" not in alone.arguments
    assert paper.arguments[-2:] == ("--objective", "paper:0.1")
    assert isinstance(alone, TrainingCell)

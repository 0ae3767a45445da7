import csv
from pathlib import Path

import pytest

from geco_ext.experiments.results_file import ResultsFile, markdown_table


def test_finished_cells_are_found_again_by_their_key(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "study.csv"
    ResultsFile(path, key=("rule", "kappa")).add({"rule": "default", "kappa": "0.1", "RMSE": "0.1001"})
    results = ResultsFile(path, key=("rule", "kappa"))
    assert results.has({"rule": "default", "kappa": "0.1"})
    assert not results.has({"rule": "default", "kappa": "0.2"})
    results.add({"rule": "default", "kappa": "0.2", "RMSE": "0.1999"})
    with path.open(newline="") as file:
        assert [row["RMSE"] for row in csv.DictReader(file)] == ["0.1001", "0.1999"]
    assert [entry.name for entry in path.parent.iterdir()] == ["study.csv"]


def test_markdown_holds_every_row_below_the_introduction(tmp_path: Path) -> None:
    results = ResultsFile(tmp_path / "study.csv", key=("rule",))
    results.add({"rule": "paper, lr 1", "met": "no"})
    results.write_markdown("# Title")
    assert (tmp_path / "study.md").read_text() == (
        "# Title\n\n| rule        | met |\n|-------------|-----|\n| paper, lr 1 | no  |\n"
    )


def test_rows_are_sorted_by_their_key_whatever_the_order_they_were_finished_in(tmp_path: Path) -> None:
    results = ResultsFile(tmp_path / "study.csv", key=("rule", "kappa"))
    for rule, kappa in (("paper", "0.06"), ("default", "10"), ("default", "9.5")):
        results.add({"rule": rule, "kappa": kappa})
    assert [tuple(row.values()) for row in results.rows] == [("default", "9.5"), ("default", "10"), ("paper", "0.06")]


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    path.write_text("name,value\nfirst,1\n")
    with pytest.raises(ValueError, match=r"study\.csv is no file of this study, expected the columns rule, kappa"):
        ResultsFile(path, key=("rule", "kappa"))
    assert path.read_text() == "name,value\nfirst,1\n"


def test_no_rows_make_an_empty_table() -> None:
    assert markdown_table([]).strip("| \n") == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"rule,kappa,RMSE\ndefault,0.1,0.1001\ndefa", "is damaged: line 3 has not as many columns as the first"),
        (b"rule,kappa\ndefault,0.1,0.1001\n", "is damaged: line 2"),
        (b"\xff\xfe\x00rule", "is no CSV file"),
    ],
)
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "study.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"study\.csv {message}"):
        ResultsFile(path, key=("rule", "kappa"))
    assert path.read_bytes() == content


def test_rows_of_another_version_are_not_mixed(tmp_path: Path) -> None:
    results = ResultsFile(tmp_path / "study.csv", key=("rule",))
    results.add({"rule": "default", "note": ""})
    with pytest.raises(ValueError, match=r"other columns: rule, note, expected rule, RMSE"):
        results.add({"rule": "paper", "RMSE": "0.1"})

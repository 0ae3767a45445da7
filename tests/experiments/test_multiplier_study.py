from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from geco_ext.experiments import multiplier_study

ONE_CELL = ["--steps", "4", "--kappas", "0.1", "--seeds", "0", "--threads", "1"]


@pytest.fixture(autouse=True)
def settings_of_the_process_as_found() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def test_every_rule_gives_a_row_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert multiplier_study.main([*ONE_CELL, "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for rule in multiplier_study.RULES:
        assert f"| {rule}" in printed
    assert printed.strip() in (tmp_path / "multiplier_study.md").read_text()


def test_an_interrupted_study_keeps_finished_cells_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*ONE_CELL, "--output", str(tmp_path), "--rules", "default", "paper, lr 1"]
    run, started = multiplier_study.run, []

    def interrupted(cell: multiplier_study.Cell, *others: object, **named: object) -> dict[str, str]:
        started.append(cell.rule)
        if cell.rule == "paper, lr 1":
            raise KeyboardInterrupt
        return run(cell, *others, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(multiplier_study, "run", interrupted)
    assert multiplier_study.main(arguments) == 130
    assert started == ["default", "paper, lr 1"]
    assert "stopped" in capsys.readouterr().err
    monkeypatch.setattr(
        multiplier_study, "run", lambda cell, *_, **__: started.append(cell.rule) or run(cell, *_, **__)
    )
    assert multiplier_study.main(arguments) == 0
    assert started == ["default", "paper, lr 1", "paper, lr 1"]


def test_the_same_cell_trains_to_the_same_bits() -> None:
    images = multiplier_study.digits()
    assert images.shape == (1500, 1, 16, 16)
    rows = [multiplier_study.run(multiplier_study.Cell("default", 0.1, seed=0, steps=5), images) for _ in range(2)]
    measured = [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
    assert measured[0] == measured[1]


def test_batches_are_whole_and_cover_the_images_once_an_epoch() -> None:
    images = torch.arange(300.0)
    drawn = list(multiplier_study.batches(images, steps=5, seed=0))
    assert [len(batch) for batch in drawn] == [128] * 5
    for epoch in range(2):
        seen = torch.cat(drawn[2 * epoch : 2 * epoch + 2])
        assert len(seen.unique()) == 256
    assert not torch.equal(drawn[0], drawn[2])


def test_the_end_of_training_is_measured_against_the_tenth_before() -> None:
    trajectory = multiplier_study.Trajectory(
        log_multiplier=torch.cat([torch.zeros(90), torch.linspace(3.0, 3.25, 10)]),
        kl=torch.cat([torch.zeros(80), torch.full((10,), 20.0), torch.full((10,), 18.0)]),
    )
    assert trajectory.log_multiplier_drift() == pytest.approx(0.25)
    assert trajectory.kl_at_the_end() == (18.0, -2.0)


def test_a_table_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "multiplier_study.csv").write_text("name,value\nfirst,1\n")
    assert multiplier_study.main([*ONE_CELL, "--output", str(tmp_path)]) == 2
    assert "is no file of this study" in capsys.readouterr().err

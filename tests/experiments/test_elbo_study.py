import pytest

from geco_ext.experiments import elbo_study
from geco_ext.experiments.results_file import ResultsFile


class Trained:
    """In the place of trainings: every cell ends at what is told, or at its kappa with 10 nats."""

    ends = None
    trained = None

    def __init__(self, folder, jobs, say):
        pass

    def train(self, cells, finished):
        for cell in cells:
            names = tuple(cell.columns[column] for column in ("model", "data", "rule", "kappa", "seed"))
            self.trained.append(names)
            rmse, kl = self.ends.get(names, self.ends.get(names[:3], (float(names[3] or 0.05), 10.0)))
            finished(
                cell,
                {
                    "rmse": rmse,
                    "kl": kl,
                    "held_out": {"rmse": 2 * rmse, "kl": kl},
                    "constraints": [{"multiplier": 4000.0}] if names[3] else [],
                    "skipped_steps": 0,
                },
            )
        return []


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(elbo_study, "TrainingCells", Trained)

    def run(ends, *arguments):
        Trained.ends, Trained.trained = ends, []
        assert elbo_study.main(["--output", str(tmp_path), *arguments]) == 0
        rows = ResultsFile(tmp_path / "elbo.csv", key=elbo_study.KEY).rows
        return capsys.readouterr().out, rows, Trained.trained

    return run


ELBOS = {("nvp", "digits", "elbo"): (0.05, 40.0)}


def test_kappa_is_the_error_of_the_elbo_and_only_finalists_have_all_seeds(run, tmp_path):
    said, rows, trained = run(ELBOS | {("nvp", "digits", "default", "0.0500", "1"): (0.049, 38.0)})
    assert {names[3] for names in trained if names[:2] == ("nvp", "digits") and names[2] == "natural"} == {"0.0500"}
    for rule in elbo_study.RULES:
        seeds = {names[4] for names in trained if names[:3] == ("nvp", "patches", rule)}
        assert seeds == ({"0", "1", "2"} if rule in elbo_study.FINALISTS else {"0"})
    (row,) = [r for r in rows if (r["model"], r["data"], r["rule"], r["seed"]) == ("nvp", "digits", "default", "1")]
    assert float(row["KL' / ELBO"]) == pytest.approx((38 + 4000 * (0.049**2 - 0.05**2)) / 40, abs=5e-4)
    assert "default, nvp on digits: KL' 0.4" in said
    assert said.strip() in (tmp_path / "elbo.md").read_text()
    assert run(ELBOS)[2] == []  # finished cells are not trained again


def test_a_cell_too_far_from_its_elbo_is_trained_once_more_at_another_kappa(run):
    far = ("nvp", "digits", "default", "0.0500", "2")
    _, rows, trained = run(ELBOS | {far: (0.045, 50.0)})
    again = [names for names in trained if names[:3] == far[:3] and names[4] == "2" and names != far]
    assert again == [("nvp", "digits", "default", f"{0.05 / 0.9:.4f}", "2")]
    (row,) = [r for r in rows if (r["model"], r["data"], r["rule"], r["kappa"], r["seed"]) == far]
    assert (row["RMSE / ELBO"], row["KL' / ELBO"]) == ("0.900", "")


def test_tight_kappas_stand_beside_reconstruction_alone(run):
    said, _, _ = run({("nvp", "digits", "default", "0.02", "0"): (0.03, 90.0)}, "--seeds", "1")
    assert "kappa 0.02: RMSE 0.0300, not met within 3%; reconstruction alone 0.0500" in said
    assert "kappa 0.04: RMSE 0.0400, met within 3%" in said

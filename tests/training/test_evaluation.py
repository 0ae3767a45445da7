import math

import pytest
import torch
from tiny_runs import TINY_MODEL

import geco_ext
from geco_ext.data import ImageDataset
from geco_ext.data.images import ImageSubset
from geco_ext.models.output import VariationalOutput
from geco_ext.training import evaluation
from geco_ext.training.evaluation import Evaluation, constraint_results, evaluate, fixed_seed
from geco_ext.training.report import Report
from geco_ext.training.training_step import ConstrainedTraining


@pytest.fixture
def dataset():
    generator = torch.Generator().manual_seed(0)
    return ImageDataset(torch.rand(70, 2, 8, 8, generator=generator), torch.zeros(70, dtype=torch.int64))


def module_with(*constraints):
    torch.manual_seed(0)
    model = geco_ext.models.NVPVAE((2, 8, 8), **TINY_MODEL)
    criterion = geco_ext.GECOLoss(constraints)
    return ConstrainedTraining(model, criterion, learning_rate=1e-3, steps=1, takes_context=False).eval()


def test_rmse_is_the_root_of_the_mean_over_all_elements(dataset, monkeypatch):
    module = module_with(geco_ext.ReconstructionError(kappa=0.1))
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", len(dataset))
    measured = evaluate(module, dataset, seed=3, reconstructions=len(dataset))
    with fixed_seed(3, torch.device("cpu")), torch.no_grad():
        output = module.model(dataset.images)
    assert measured.rmse == pytest.approx(float((output.x_hat - dataset.images).square().mean().sqrt()), rel=1e-6)
    assert measured.kl == pytest.approx(float(output.kl.mean()), rel=1e-6)
    assert float(measured.constraints) == pytest.approx(measured.rmse**2 - 0.01, rel=1e-5)


def test_batches_of_different_sizes_weigh_by_their_examples(dataset, monkeypatch):
    module = module_with(
        geco_ext.ReconstructionError(kappa=0.1), geco_ext.ReconstructionError(0.2, channels=2, name="c")
    )
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 32)  # 32, 32 and 6
    measured = evaluate(module, dataset, seed=3, reconstructions=len(dataset))
    assert float(measured.constraints[0]) == pytest.approx(measured.rmse**2 - 0.01, rel=1e-5)
    assert float(measured.constraints[1:].mean()) == pytest.approx(measured.rmse**2 - 0.04, rel=1e-5)


def test_missing_pixels_do_not_count(dataset, monkeypatch):
    """In the error, in each constraint's batch average, and where a whole batch has none of a channel."""
    images = dataset.images.clone()
    images[:, :, 2:5, 3:8] = math.nan
    images[7] = math.nan
    images[:32, 1] = math.nan
    missing = ImageDataset(images, dataset.labels, has_missing=True)
    module = module_with(
        geco_ext.ReconstructionError(kappa=0.1),
        geco_ext.ReconstructionError(0.2, channels=2, name="c"),
        geco_ext.AbsoluteError(0.1, reduction="sum"),
    )
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 32)
    seen = []
    forward = module.reconstructed
    monkeypatch.setattr(module, "reconstructed", lambda batch: seen.append(forward(batch)) or seen[-1])
    measured = evaluate(module, missing, seed=3, reconstructions=len(missing))
    x_hat = torch.cat([output.x_hat for output in seen]).double()
    x, known = missing.images.double(), ~images.isnan()
    assert torch.equal(missing[:]["weight"], known)
    assert torch.equal(missing[5]["x"], missing.images[5])
    assert not missing.images.isnan().any()
    squared, absolute = (x_hat - x).square() * known, (((x_hat - x).square() + 1e-6).sqrt() - 1e-3) * known
    assert measured.rmse == pytest.approx(float((squared.sum() / known.sum()).sqrt()), rel=1e-6)
    assert measured.elements == pytest.approx(float(known.sum()) / 70)
    some = torch.arange(70) != 7
    of_examples = squared.sum((1, 2, 3)) / known.sum((1, 2, 3))
    of_channel = [squared[:, c].sum((1, 2)) / known[:, c].sum((1, 2)) for c in range(2)]
    expected = [
        of_examples[some].mean() - 0.01,
        *(row[~row.isnan()].mean() - 0.04 for row in of_channel),
        absolute.sum((1, 2, 3))[some].mean() - 0.1,
    ]
    torch.testing.assert_close(measured.constraints, torch.stack(expected), rtol=1e-5, atol=1e-6)


def test_the_verdict_on_a_few_images_does_not_hang_on_the_draw(dataset, monkeypatch):
    """Each sample of an image is off by N(0, 0.1^2) everywhere, the RMSE over many is 0.1."""
    few = ImageSubset(dataset, torch.arange(7))
    module = module_with(geco_ext.ReconstructionError(kappa=0.1025))

    def off(batch):
        x = batch["x"]
        return VariationalOutput(x + 0.1 * torch.randn(len(x), 1, 1, 1), torch.ones(len(x)), torch.zeros(len(x), 1))

    monkeypatch.setattr(module, "reconstructed", off)

    def verdicts(**options):
        found = [evaluate(module, few, seed, **options) for seed in range(30)]
        assert {each.samples for each in found} == {1 if options else math.ceil(evaluation.ENOUGH / 7)}
        assert all(float(each.constraints) == pytest.approx(each.rmse**2 - 0.1025**2, rel=1e-4) for each in found)
        assert all(each.kl == 1 and each.elements == 128 for each in found)
        return {each.rmse <= 0.105 for each in found}

    assert verdicts() == {True}
    assert verdicts(reconstructions=7) == {True, False}


def test_measuring_changes_neither_the_random_state_nor_the_criterion(dataset):
    module = module_with(geco_ext.ReconstructionError(kappa=0.1))
    random_state, state = torch.get_rng_state(), {k: v.clone() for k, v in module.state_dict().items()}
    evaluate(module, dataset, seed=0)
    assert torch.equal(random_state, torch.get_rng_state())
    torch.testing.assert_close(module.state_dict(), state, rtol=0, atol=0, equal_nan=True)


class Own(geco_ext.Constraint):
    scale = 0.5

    def forward(self, x_hat, x, labels=None):
        return x_hat.mean((1, 2, 3)) - self.kappa


class Deviation(geco_ext.Constraint):
    def forward(self, x_hat, x, labels=None):
        return (x_hat - x).abs().mean((1, 2, 3)) - self.kappa


def results(values, constraints, history=None):
    criterion = geco_ext.GECOLoss(constraints, multiplier_init=2.0, multiplier_bounds=(1.0, 4.0))
    return constraint_results(
        criterion, Evaluation(0.1, 5.0, torch.tensor(values, dtype=torch.float64), elements=64.0), history or {}
    )


def test_each_kind_of_constraint_is_reported_in_the_quantity_its_kappa_bounds():
    rows = results(
        [0.12**2 - 0.01, 0.04**2 - 0.0025, 0.9 - 0.95, 0.2],
        [
            geco_ext.ReconstructionError(0.1),
            geco_ext.LocalStatistics(0.05, patch_size=4),
            geco_ext.PatchNCC(0.9, patch_size=4),
            Own(kappa=0.3),
        ],
    )
    assert [row.reached for row in rows] == pytest.approx([0.12, 0.04, 0.95, 0.2])
    assert [row.violation for row in rows] == pytest.approx([0.44, -0.36, -0.5, 0.4])
    assert [row.met for row in rows] == [False, True, True, False]
    assert [row.deviation_percent for row in rows][:3] == pytest.approx([20, -20, 100 * (0.95 / 0.9 - 1)])
    assert rows[3].deviation_percent is None
    assert [row.multiplier for row in rows] == pytest.approx([2.0] * 4)


def test_an_error_of_ones_own_is_told_as_an_error():
    """With no scale given, a class subtracts kappa from an error."""
    (row,) = results([0.05], [Deviation(kappa=0.1)])
    assert (row.asked, row.reached) == ("<= 0.1", pytest.approx(0.15))
    assert row.deviation_percent == pytest.approx(50)
    assert row.violation == pytest.approx(0.5)


def test_channels_have_rows_of_their_own():
    rows = results([0.03, -0.01], [geco_ext.ReconstructionError(0.1, channels=2)])
    assert [row.name for row in rows] == ["reconstruction_error/0", "reconstruction_error/1"]
    assert [row.reached for row in rows] == pytest.approx([0.2, 0.0], abs=1e-8)


def test_a_broken_model_is_not_reported_as_perfect():
    (row,) = results([math.nan], [geco_ext.ReconstructionError(0.1)])
    assert math.isnan(row.reached)
    assert not row.met


@pytest.mark.parametrize(
    ("records", "rests"), [([0.0] * 100, False), ([0.0] * 90 + [1.0] * 10, True), ([1.0, 0.0], False)]
)
def test_a_multiplier_rests_on_its_bound_if_it_was_there_at_the_end(records, rests):
    (row,) = results([0.1], [geco_ext.ReconstructionError(0.1)], {"at_bound/reconstruction_error": records})
    assert row.at_bound is rests
    report = Report(steps=1, seconds=1, skipped_steps=0, rmse=0.1, kl=5.0, constraints=(row,))
    assert any("rests on its upper bound" in remark for remark in report.remarks()) is rests


def test_the_table_is_markdown_with_aligned_columns():
    rows = results([0.03, 0.1], [geco_ext.ReconstructionError(0.1), Own(kappa=0.3)])
    report = Report(steps=1, seconds=1, skipped_steps=3, rmse=0.2, kl=5.0, constraints=rows)
    lines = report.table().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "| reconstruction_error | <= 0.1      | 0.2000  | +100.0%" in lines[2]
    assert "3 steps were left out because something was not finite." in report.remarks()

"""The criterion in a user's own LightningModule, under a Trainer with its defaults."""

import lightning as L
import pytest
import torch

import geco_ext


class Deviation(geco_ext.Constraint):
    def forward(self, x_hat, x, labels=None):
        return (x_hat - x).abs().mean(1) - self.kappa


class OwnModule(L.LightningModule):
    def __init__(self, constraint):
        super().__init__()
        self.layer = torch.nn.Linear(16, 16)
        self.criterion = geco_ext.GECOLoss(constraint)
        self.seen = []

    def loss(self, batch):
        (x,) = batch
        return self.criterion(self.layer(x), x, self.layer.weight.square().sum())

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.seen.append((self.trainer.sanity_checking, self.loss(batch), int(self.criterion.steps)))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


@pytest.mark.parametrize("constraint", [geco_ext.ReconstructionError, Deviation])
def test_validation_before_training_is_answered_and_moves_nothing(tmp_path, constraint):
    module = OwnModule(constraint(0.1))
    images = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.rand(32, 16)), batch_size=16)
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    trainer.fit(module, images, images)
    assert [(sane, steps) for sane, _, steps in module.seen] == [(True, 0), (True, 0), (False, 2), (False, 2)]
    assert all(loss.isfinite() for _, loss, _ in module.seen)

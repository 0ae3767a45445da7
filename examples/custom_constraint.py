"""A constraint of one's own: the edges of a reconstruction must resemble those of the data.

python examples/custom_constraint.py --steps 2000

`geco train` takes the class as it stands, too:
geco train --constraint re=0.1 --constraint examples/custom_constraint.py:EdgeError=0.05
"""

import argparse

import torch
from torch import Tensor

import geco_ext


class EdgeError(geco_ext.Constraint):
    """Absolute error of the differences of neighbouring pixels, on average at most kappa.

    Nothing else is needed: violations are measured in units of kappa, and the multiplier starts from D / (2 kappa) with
    D the pixels of an image. Had ``forward`` subtracted ``self.kappa**2``, ``self.scale`` would have to say so.
    """

    def forward(self, x_hat: Tensor, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """One value per example, [B]; the gradient flows through it."""
        difference = x_hat - x
        horizontal = difference.diff(dim=3).abs().mean((1, 2, 3))
        vertical = difference.diff(dim=2).abs().mean((1, 2, 3))
        return (horizontal + vertical) / 2 - self.kappa


def main(steps: int) -> None:
    """Train under two constraints and print how far each is from its tolerance."""
    torch.manual_seed(0)
    digits = geco_ext.data.load("digits", size=16)
    model = geco_ext.models.NVPVAE(digits.image_shape)
    criterion = geco_ext.GECOLoss([geco_ext.ReconstructionError(kappa=0.1), EdgeError(kappa=0.05)])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    for step in range(1, steps + 1):
        x = digits[torch.randint(len(digits), (128,))]["x"]
        x_hat, kl, _ = model(x)
        optimizer.zero_grad()
        criterion(x_hat, x, kl).backward()
        optimizer.step()
        if step % 100 == 0 or step == steps:
            metrics = criterion.metrics()
            values = ", ".join(f"{name} {metrics[f'moving_average/{name}']:+.4f}" for name in criterion.names)
            print(f"step {step}: KL {kl.mean():.1f} nats, constraints (satisfied at 0 or below): {values}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    main(parser.parse_args().steps)

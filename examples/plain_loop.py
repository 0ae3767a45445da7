"""The criterion in a plain PyTorch loop: a VAE+NVP on handwritten digits, root mean squared error at most 0.1.

python examples/plain_loop.py --steps 2000
"""

import argparse

import torch

import geco_ext


def main(steps: int) -> None:
    """Train and print what is reached."""
    torch.manual_seed(0)
    digits = geco_ext.data.load("digits", size=16)
    model = geco_ext.models.NVPVAE(digits.image_shape)
    criterion = geco_ext.GECOLoss([geco_ext.ReconstructionError(kappa=0.1)])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    for step in range(1, steps + 1):
        x = digits[torch.randint(len(digits), (128,))]["x"]
        x_hat, kl, _ = model(x)
        loss = criterion(x_hat, x, kl)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0 or step == steps:
            error = (x_hat - x).square().mean().sqrt()
            print(f"step {step}: RMSE {error:.3f}, KL {kl.mean():.1f} nats, multiplier {criterion.multiplier[0]:.0f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    main(parser.parse_args().steps)

"""How the multiplier should move: the default update beside the paper's literal rule, on handwritten digits.

Algorithm 1 of the paper moves the multiplier "proportionally to" the moving average of the constraint and leaves the
factor open. This study trains the VAE+NVP model under one reconstruction constraint, RMSE <= kappa, for the paper's
five values of kappa, once with the default `GECOLoss` and once with Algorithm 1 to the letter at several factors. The
training setting is the same in every cell. A cell has settled at kappa when

- the root mean squared error on the training set ends within 3% of kappa, on either side,
- no step was non-finite,
- log lambda moved by less than 0.5 over the last tenth of training, and
- the KL was not rising: its mean over the last tenth exceeds that over the tenth before by no more than 2%.

Run it with ``python -m geco_ext.experiments.multiplier_study``. Finished cells are kept in a CSV file and skipped next
time, so it can be interrupted at any moment.
"""

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

import geco_ext
from geco_ext.data import load
from geco_ext.experiments.results_file import ResultsFile, markdown_table
from geco_ext.models import NVPVAE

KAPPAS = (0.06, 0.08, 0.1, 0.125, 0.175)
SEEDS = (0, 1)
RULES: dict[str, Callable[[Sequence[geco_ext.Constraint]], geco_ext.GECOLoss]] = {
    "default": geco_ext.GECOLoss,
    "natural": geco_ext.GECOLoss.natural,
    "paper, lr 0.01": partial(geco_ext.GECOLoss.paper, lr=0.01),
    "paper, lr 0.1": partial(geco_ext.GECOLoss.paper, lr=0.1),
    "paper, lr 1": partial(geco_ext.GECOLoss.paper, lr=1.0),
}

IMAGE_SIZE = 16
BATCH_SIZE = 128
LEARNING_RATE = 1e-3
STEPS = 3000
DECAY = 0.2  # the last fifth of training lowers the learning rate linearly to zero

NEAR = 0.03
SETTLED = 0.5
RISING = 0.02


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run of the study."""

    rule: str
    kappa: float
    seed: int
    steps: int

    def columns(self) -> dict[str, str]:
        """The columns that name the cell in the table."""
        return {"rule": self.rule, "kappa": f"{self.kappa:g}", "seed": str(self.seed), "steps": str(self.steps)}


@dataclasses.dataclass
class Trajectory:
    """What every training step left behind: log lambda after it, and its KL in nats; [steps], on the device."""

    log_multiplier: Tensor
    kl: Tensor

    @property
    def tenth(self) -> int:
        """A tenth of training, in steps."""
        return max(len(self.kl) // 10, 1)

    def log_multiplier_drift(self) -> float:
        """How far apart the highest and the lowest log lambda of the last tenth are."""
        last = self.log_multiplier[-self.tenth :]
        return float(last.max() - last.min())

    def kl_at_the_end(self) -> tuple[float, float]:
        """Mean KL of the last tenth, and by how much it exceeds that of the tenth before; nats."""
        last, before = self.kl[-self.tenth :].mean(), self.kl[-2 * self.tenth : -self.tenth].mean()
        return float(last), float(last - before)


def digits(device: str = "cpu") -> Tensor:
    """The training images, [N, 1, 16, 16] in [0, 1]."""
    dataset = load("digits", size=IMAGE_SIZE)
    return torch.stack([dataset[index]["x"] for index in range(len(dataset))]).to(device)


def batches(images: Tensor, steps: int, seed: int) -> Iterator[Tensor]:
    """`steps` batches, every epoch in a new order, incomplete batches left out."""
    generator = torch.Generator().manual_seed(seed)
    per_epoch = len(images) // BATCH_SIZE
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(images), generator=generator).to(images.device)
        first = step % per_epoch * BATCH_SIZE
        yield images[order[first : first + BATCH_SIZE]]


def train(
    model: NVPVAE, criterion: geco_ext.GECOLoss, images: Tensor, steps: int, seed: int, report: Callable[[str], None]
) -> Trajectory:
    """An ordinary PyTorch training loop; only `report` reads a value back from the device."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (steps - step) / (DECAY * steps)))
    trajectory = Trajectory(*(torch.full((steps,), math.nan, device=images.device) for _ in range(2)))
    for step, x in enumerate(batches(images, steps, seed)):
        output = model(x)
        loss = criterion(output.x_hat, x, output.kl)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        trajectory.log_multiplier[step] = criterion.log_multiplier[0]
        trajectory.kl[step] = output.kl.detach().mean()
        if (step + 1) % 100 == 0:
            report(
                f"step {step + 1}/{steps}  RMSE {math.sqrt(criterion.moving_average + criterion.kappa**2):.4f}  "
                f"KL {float(trajectory.kl[step]):.1f} nats  log lambda {float(criterion.log_multiplier):.2f}"
            )
    return trajectory


@torch.no_grad()
def root_mean_squared_error(model: NVPVAE, images: Tensor) -> float:
    """In eval mode, at one posterior sample, over all elements."""
    model.eval()
    return math.sqrt((model(images).x_hat - images).square().mean())


def run(cell: Cell, images: Tensor, report: Callable[[str], None] = lambda line: None) -> dict[str, str]:
    """Train one cell and measure it: a row of the table."""
    torch.manual_seed(cell.seed)
    model = NVPVAE(tuple(images.shape[1:])).to(images.device)
    criterion = RULES[cell.rule]([geco_ext.ReconstructionError(cell.kappa)]).to(images.device)
    start = time.perf_counter()
    trajectory = train(model, criterion, images, cell.steps, cell.seed, report)
    seconds = time.perf_counter() - start

    rmse = root_mean_squared_error(model, images)
    deviation = rmse / cell.kappa - 1
    kl, rise = trajectory.kl_at_the_end()
    drift = trajectory.log_multiplier_drift()
    skipped = int(criterion.skipped)
    at_bound = any(bool(value) for name, value in criterion.metrics().items() if name.startswith("at_bound/"))
    settled = abs(deviation) <= NEAR and skipped == 0 and drift < SETTLED and rise <= RISING * kl
    return {
        **cell.columns(),
        "RMSE": f"{rmse:.4f}",
        "deviation %": f"{100 * deviation:+.2f}",
        "KL": f"{kl:.2f}",
        "KL rise": f"{rise:+.2f}",
        "log lambda": f"{float(criterion.log_multiplier):.2f}",
        "log lambda drift": f"{drift:.2f}",
        "non-finite steps": str(skipped),
        "at bound": "yes" if at_bound else "no",
        "settled at kappa": "yes" if settled else "no",
        "seconds": f"{seconds:.0f}",
    }


def introduction(images: Tensor) -> str:
    """What stands above the table in the Markdown file."""
    return f"""# The multiplier update on handwritten digits

Made by `python -m geco_ext.experiments.multiplier_study`. VAE+NVP with its default sizes on {len(images)} digits of
{IMAGE_SIZE}x{IMAGE_SIZE} pixels; Adam, learning rate {LEARNING_RATE:g}, falling linearly to zero over the last \
{DECAY:.0%} of training, batch {BATCH_SIZE}.
RMSE: training set, eval mode, one posterior sample, root of the mean squared error over all elements. KL: nats, mean
over the last tenth of training; its rise is against the tenth before. Log lambda drift: highest minus lowest over the
last tenth. Settled at kappa: RMSE within {NEAR:.0%} of it on both sides, no non-finite step, drift below {SETTLED}, \
KL rising by no more than {RISING:.0%}."""


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m geco_ext.experiments.multiplier_study", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder of the table (default: %(default)s)")
    parser.add_argument("--kappas", type=float, nargs="+", default=KAPPAS, metavar="KAPPA", help="RMS error per pixel")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, metavar="SEED", help="(default: 0 1)")
    parser.add_argument(
        "--rules",
        nargs="+",
        default=list(RULES),
        choices=list(RULES),
        metavar="RULE",
        help=", ".join(f'"{rule}"' for rule in RULES),
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of a cell (default: %(default)s)")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="(default: %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cells that are not finished yet and print the table.

    Returns:
        The exit code: 0, 2 where the output folder holds another study's table, 130 after Ctrl-C.
    """
    options = parsed(arguments)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)  # saturated pixels have gradients so small that they slow a CPU down
    try:
        results = ResultsFile(options.output / "multiplier_study.csv", key=("rule", "kappa", "seed", "steps"))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    images = digits(options.device)
    cells = [Cell(*names, options.steps) for names in product(options.rules, options.kappas, options.seeds)]
    try:
        for number, cell in enumerate(cells, start=1):
            title = f"[{number}/{len(cells)}] {cell.rule}, kappa {cell.kappa:g}, seed {cell.seed}"
            if results.has(cell.columns()):
                print(f"{title}: finished before", file=sys.stderr)
                continue
            results.add(run(cell, images, report=partial(print_progress, title)))
            results.write_markdown(introduction(images))
            print(file=sys.stderr)
    except KeyboardInterrupt:
        print(f"\nstopped; finished cells are in {results.path}, the same command goes on", file=sys.stderr)
        return 130
    print(markdown_table(results.rows))
    return 0


def print_progress(title: str, line: str) -> None:
    """One line that rewrites itself."""
    print(f"\r\033[K{title}: {line}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

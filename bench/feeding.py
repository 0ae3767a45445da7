"""How many images a second the data sets give, in batches as `geco train` takes them, and what that is of a step.

    python bench/feeding.py [--threads 2] [--seconds 1]
    python bench/feeding.py --write         # on an idle machine: results/feeding.md

Every row is measured through the same order and loader as in training, a new permutation for each epoch included. The
bar is 128000 images of 32x32x3 a second: a GPU step of 1 ms at batch 128. The share is that of a training step of
VAE+NVP on this CPU, with the same number of threads; at most 5% is wanted. Arrays are larger than the caches of the
processor, and files are in the page cache. Where other processes hold the cores, the fastest tenth of the batches,
with one thread, says better what an idle machine would do.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from results import machine
from torch.utils.data import DataLoader

import geco_ext
from geco_ext.data import ImageDataset
from geco_ext.training.batches import BatchOrder

BATCH = 128
BAR = 128_000
LARGEST_SHARE = 0.05
COUNT = {"cifar10": 50_000, "mnist": 60_000}
STEPS = 10
PAGE = Path(__file__).parent / "results" / "feeding.md"
HEADER = """| data set | us a batch | images/s | fastest tenth | share of a CPU step |
|---|---|---|---|---|"""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.threads} threads of {os.cpu_count()}; load before: {os.getloadavg()[0]:.2f}")
    print(HEADER)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, dataset in data_sets(Path(folder)):
            rows.append(row(name, dataset, arguments.seconds))
            print(rows[-1], flush=True)
    if arguments.write:
        PAGE.write_text(page(rows, arguments.threads))
        print(f"wrote {PAGE}")


def row(name: str, dataset: ImageDataset, seconds: float) -> str:
    """A line of the table; bars that are missed are marked."""
    mean, undisturbed = seconds_a_batch(dataset, seconds)
    share = mean / seconds_a_step(dataset)
    slow = "" if BATCH / mean >= BAR else " (below the bar)"
    large = "" if share <= LARGEST_SHARE else " (above 5%)"
    rates = f"{BATCH / mean:,.0f}{slow} | {BATCH / undisturbed:,.0f}"
    return f"| {name} | {1e6 * mean:.0f} | {rates} | {share:.2%}{large} |"


def page(rows: list[str], threads: int) -> str:
    """The table with how it was made."""
    of = machine(torch.device("cpu"))
    return "\n".join(
        [
            "# Feeding",
            "",
            f"Made by `python bench/feeding.py --write`: batches of {BATCH} as `geco train` takes them,",
            f"{threads} threads; means, and the rate at which the fastest tenth of the batches came.",
            f"At least {BAR:,} images/s of 32x32x3 are wanted, and at most {LARGEST_SHARE:.0%} of a training step of",
            f"VAE+NVP on this CPU. {of['processor']}, torch {of['torch']}, geco_ext {of['geco_ext']}.",
            "",
            HEADER,
            *rows,
            "",
        ]
    )


def data_sets(folder: Path) -> Iterator[tuple[str, ImageDataset]]:
    """Random pixels in the sizes of the real sets, made by what loads those."""
    levels = np.random.default_rng(0).integers(256, size=(COUNT["cifar10"], 3, 32, 32), dtype=np.uint8)
    labels = torch.zeros(len(levels), dtype=torch.int64)
    yield "3x32x32 float32, 614 MB", ImageDataset(torch.from_numpy(levels).float() / 255, labels)
    yield "3x32x32 uint8, 154 MB", ImageDataset(torch.from_numpy(levels), labels)
    np.save(folder / "levels.npy", levels)
    yield "3x32x32 uint8, memory-mapped", geco_ext.data.load(f"npy:{folder / 'levels.npy'}")
    np.save(folder / "values.npy", levels.astype(np.float32) / 255)
    yield "3x32x32 float32, memory-mapped", geco_ext.data.load(f"npy:{folder / 'values.npy'}")
    write_mnist(folder)
    for pattern, storage in itertools.product(("", "-triplets", "-sum", "-sum-hard", "-rotate"), ("float32", "uint8")):
        name = f"mnist{pattern}"
        yield f"{name} 32x32 {storage}", geco_ext.data.load(name, root=folder, size=32, storage=storage)
    for storage in ("float32", "uint8"):
        yield f"color-mnist 32x32 {storage}", geco_ext.data.load("color-mnist", root=folder, size=32, storage=storage)
    for name in ("digits", "digits-sum"):
        yield f"{name} 16x16", geco_ext.data.load(name, size=16)


def write_mnist(folder: Path) -> None:
    random = np.random.default_rng(0)
    for kind, shape, top in (("images-idx3", (COUNT["mnist"], 28, 28), 256), ("labels-idx1", (COUNT["mnist"],), 10)):
        values = random.integers(top, size=shape, dtype=np.uint8)
        header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
        (folder / f"train-{kind}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes(), compresslevel=1))


def seconds_a_batch(dataset: ImageDataset, seconds: float) -> tuple[float, float]:
    """Mean over at least that many seconds, and what the fastest tenth took at most, after an epoch of warming up."""
    batches = iter(DataLoader(dataset, sampler=BatchOrder(len(dataset), BATCH, seed=0), batch_size=None))
    for _ in range(len(dataset) // BATCH):
        next(batches)
    times: list[float] = []
    while sum(times) < seconds:
        times.append(timed(lambda: next(batches)))
    return sum(times) / len(times), sorted(times)[len(times) // 10]


def seconds_a_step(dataset: ImageDataset) -> float:
    """The fastest of some training steps of VAE+NVP, on one batch that is there already."""
    x = dataset[torch.arange(BATCH)]["x"]
    model = geco_ext.models.NVPVAE(dataset.image_shape)
    criterion = geco_ext.GECOLoss([geco_ext.ReconstructionError(kappa=0.1)])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        output = model(x)
        loss = criterion(output.x_hat, x, output.kl)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return min(timed(step) for _ in range(STEPS))


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

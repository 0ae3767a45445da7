from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm  # type: ignore[import-untyped]

from geco_ext.training.constrained_training import is_recorded
from geco_ext.training.report import short

PLAIN_LINES = 10
"""Lines a whole training prints where the output is no terminal."""


class ShowProgress(ProgressBar):
    """A bar over all steps with some numbers; in a log file a line every tenth of the way instead.

    It must come after `RecordMetrics`, whose numbers it shows: reading them once more would wait for the device again.

    Args:
        numbers: the numbers of the last recorded step in a few words.
    """

    def __init__(self, numbers: Callable[[], str]) -> None:
        super().__init__()
        self.numbers = numbers
        self._enabled = True
        self._bar: tqdm[Any] | None = None
        self._tenths = 0

    def disable(self) -> None:
        """Show nothing; Lightning asks for this on all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show progress."""
        self._enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar at the step training starts from."""
        self._tenths = trainer.global_step * PLAIN_LINES // trainer.max_steps
        if self._enabled and sys.stderr.isatty():
            self._bar = tqdm(
                desc="training", total=trainer.max_steps, initial=trainer.global_step, unit="step", dynamic_ncols=True
            )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the step."""
        step = trainer.global_step
        if not self._enabled or not is_recorded(step):
            return
        if self._bar is not None:
            self._bar.set_postfix_str(self.numbers(), refresh=False)
            self._bar.update(step - self._bar.n)
        elif step * PLAIN_LINES // trainer.max_steps > self._tenths:
            self._tenths = step * PLAIN_LINES // trainer.max_steps
            print(f"step {step}/{trainer.max_steps}  {self.numbers()}", file=sys.stderr, flush=True)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def summary(metrics: dict[str, float]) -> str:
    """RMSE, KL and what weighs them, multipliers or sigma and beta, in a few words."""
    multipliers = " ".join(short(value) for name, value in metrics.items() if name.startswith("multiplier/"))
    weights = (
        f"multiplier {multipliers}" if multipliers else f"sigma {metrics['sigma']:.4g}  beta {metrics['beta']:.4g}"
    )
    return f"RMSE {metrics['rmse']:.4f}  KL {metrics['kl']:.2f} nats  {weights}"

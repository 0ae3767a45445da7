"""How far a training is, shown by the clock while it goes on: a bar on a terminal, lines in a log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar
from tqdm import tqdm  # type: ignore[import-untyped]

from geco_ext.training.remarks import format_number

SHOWN = {"RMSE": "rmse", "KL": "kl", "sigma": "sigma", "beta": "beta"}
"""Numbers of the bar, and where a record has them."""

BAR_SECONDS, LOG_SECONDS = 1.0, 20.0
"""How long what is shown stays as it is, at least: on a terminal, and in a log, where all that is written stays."""

LINE = "{desc}: {n_fmt}/{total_fmt} steps, {percentage:.0f}%, {elapsed} gone, {remaining} left, {rate_fmt}{postfix}"


class _Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
    """Asks for its numbers where it is shown, and only there: to read them may be to wait for the device."""

    def __init__(self, numbers: Callable[[], dict[str, str]], seconds: float, **how: Any) -> None:
        self.numbers = numbers
        # Without miniters tqdm guesses from the rate so far at which step the time will have come.
        super().__init__(mininterval=seconds, miniters=0, **how)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        self.set_postfix(self.numbers(), refresh=False)
        super().display(msg, pos)


class _Lines(_Bar):
    """The bar as lines, one at the start and one at the end among them."""

    def __init__(self, numbers: Callable[[], dict[str, str]], seconds: float, **how: Any) -> None:
        super().__init__(numbers, seconds, bar_format=LINE, leave=False, **how)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if msg is None:  # else tqdm wipes out what is shown
            self.set_postfix(self.numbers(), refresh=False)
            self.fp.write(f"{self}\n")
            self.fp.flush()

    def clear(self, nolock: bool = False) -> None:
        """Nothing: what else is written comes below the last line."""

    def close(self) -> None:
        if not self.disable:
            self.display()
        super().close()


class Progress(TQDMProgressBar):
    """Steps done, steps a second and the time that is left, over all steps of a training, with its latest numbers.

    It must come after `RecordMetrics`, whose numbers it shows: reading them once more would wait for the device again.

    Args:
        numbers: what stands behind the steps.
    """

    def __init__(self, numbers: Callable[[], dict[str, str]]) -> None:
        super().__init__()
        self.numbers = numbers
        self._bar: _Bar | None = None

    def init_train_tqdm(self) -> Any:
        """A bar on stderr, which leaves stdout to the results."""
        done, steps = self.trainer.global_step, self.trainer.max_steps
        shown = {"desc": "training", "initial": done, "total": steps, "unit": "step", "dynamic_ncols": True}
        kind, seconds = (_Bar, BAR_SECONDS) if sys.stderr.isatty() else (_Lines, LOG_SECONDS)
        self._bar = kind(self.numbers, seconds, disable=self.is_disabled, file=sys.stderr, **shown)
        return self._bar

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Count the step; the bar looks at the clock."""
        if self._bar is not None:
            self._bar.update(trainer.global_step - self._bar.n)

    def on_train_epoch_start(self, *_: Any) -> None:
        """Leave the bar as it is: to Lightning all steps are one epoch of unknown length."""

    def on_train_epoch_end(self, *_: Any) -> None:
        """Leave the bar as it is; the end of the training closes it."""

    def on_exception(self, *_: Any) -> None:
        """End the line, so that the error has one of its own."""
        if self._bar is not None:
            self._bar.close()


def bar_numbers(metrics: Mapping[str, float], held_out: Mapping[str, float] | None = None) -> dict[str, str]:
    """What the bar shows of a record: RMSE, KL, averages and multipliers, sigma and beta, skipped steps."""
    numbers = {name: f"{metrics[key]:.4g}" for name, key in SHOWN.items() if key in metrics}
    if held_out:
        numbers["held out"] = f"{held_out['rmse']:.4g}"
    if metrics.get("skipped_steps"):
        numbers["skipped"] = f"{metrics['skipped_steps']:.0f}"
    for name, multiplier in metrics.items():
        kind, _, constraint = name.partition("/")
        if kind == "multiplier":
            numbers[constraint] = f"{metrics[f'moving_average/{constraint}']:+.2g} x {format_number(multiplier)}"
    return numbers

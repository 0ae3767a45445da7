"""Multipliers that rest on their upper bound while their constraint is not met: said while it happens."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast

import lightning as L

from geco_ext import GECOLoss
from geco_ext.training.evaluation import entries, scale_of
from geco_ext.training.met import is_met
from geco_ext.training.training_step import RECORD_EVERY, ConstrainedTraining

UPDATES = 200
"""How long a multiplier has to rest on its bound before that is said."""

FALLING = 0.9
"""A violation that has fallen below this share of what it was that long ago is on its way: multipliers rest on their
bound, which follows the error, while a model learns."""

WHAT_TO_DO = (
    "more steps may be what it needs, or, where its value no longer falls, a higher bound "
    "(--multiplier-bounds LOW:HIGH)"
)


class WarnAtBound(L.Callback):
    """One warning for each constraint.

    Args:
        latest: the last record; the callback that makes it comes before this one.
    """

    def __init__(self, latest: Callable[[], Mapping[str, float]]) -> None:
        self.latest = latest
        self._violations: dict[str, deque[float]] = {}  # while the multiplier rests on its bound, newest last
        self._warned: set[str] = set()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the latest record if it is that of this step."""
        criterion, latest = cast(ConstrainedTraining, pl_module).criterion, self.latest()
        if not isinstance(criterion, GECOLoss) or not latest or trainer.global_step % RECORD_EVERY:
            return
        for name, constraint in entries(criterion):
            violation = latest[f"moving_average/{name}"] / scale_of(constraint, latest[f"kappa/{name}"])
            seen = self._violations.setdefault(name, deque(maxlen=UPDATES // RECORD_EVERY + 1))
            if not latest[f"at_bound/{name}"] or is_met(violation):
                seen.clear()
                continue
            seen.append(violation)
            if len(seen) == seen.maxlen and seen[-1] > FALLING * seen[0] and name not in self._warned:
                self._warned.add(name)
                trainer.print(
                    f"geco: warning: the multiplier of {name} has rested on its upper bound "
                    f"({latest[f'multiplier/{name}']:.4g}) for {UPDATES} updates, and the constraint is not met "
                    f"({violation:+.0%} of its tolerance): it cannot weigh more; {WHAT_TO_DO}",
                    file=sys.stderr,
                )

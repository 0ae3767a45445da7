from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import lightning as L


class StopOnInterrupt(L.Callback):
    """Turns Ctrl-C into a stop after the current step, where a checkpoint is whole; a second Ctrl-C stops at once.

    It must come before the callback that saves checkpoints, which saves because training is about to stop.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._previous: Any = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen; only the main thread of a process can."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._interrupt)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if asked to; with several ranks all of them stop at the same step."""
        if trainer.world_size == 1:
            trainer.should_stop = trainer.should_stop or self.interrupted
        elif trainer.global_step % 10 == 0:  # the ranks agree by a collective, which is worth avoiding in most steps
            self.interrupted = trainer.strategy.reduce_boolean_decision(self.interrupted, all=False)
            trainer.should_stop = trainer.should_stop or self.interrupted

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Hand the signal back."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

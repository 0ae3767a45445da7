"""The files of a run that was moved together with them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from geco_ext.training.constraints import with_changed_files
from geco_ext.training.own_code import Change, with_changed_place
from geco_ext.training.settings import TrainingSettings


def found_again(settings: TrainingSettings, before: Path, now: Path) -> TrainingSettings:
    """The settings with the paths of files that are gone, where they lie as they lay before, seen from the run folder.

    Args:
        settings: those of a run, whose paths are absolute.
        before: the run folder when they were written.
        now: the run folder.
    """

    def change(path: str) -> str:
        moved = Path(os.path.normpath(now / os.path.relpath(path, before)))
        return str(moved) if not Path(path).exists() and moved.exists() else path

    return settings if before == now else with_changed_paths(settings, change)


def with_changed_paths(settings: TrainingSettings, change: Change) -> TrainingSettings:
    """The settings with the path of every file and folder changed that they name."""
    kind, colon, path = settings.data.partition(":")
    return replace(
        settings,
        model=with_changed_place(settings.model, change),
        objective=with_changed_place(settings.objective, change),
        constraints=tuple(with_changed_files(text, change) for text in settings.constraints),
        data=f"{kind}:{change(path)}" if colon else settings.data,
        root=None if settings.root is None else change(settings.root),
    )

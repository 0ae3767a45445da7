"""What a run is, from its folder: nothing of it is built, no code of its own imported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geco_ext.training.run_folder import RunFolder, read_history


def run_info(path: Path) -> dict[str, Any]:
    """Settings, shapes, steps done and results of a run; ``results`` is None where it has not ended.

    Raises:
        FileNotFoundError: no run there.
        ValueError: a damaged configuration, checkpoint or results file.
    """
    folder, checkpoint = RunFolder.holding(path)
    configuration = folder.read_configuration()
    history = read_history(folder.metrics_file)
    return {
        "run": str(folder.path),
        "image_shape": list(configuration.image_shape),
        "context_shape": None if configuration.context_shape is None else list(configuration.context_shape),
        "steps_saved": folder.read_checkpoint(checkpoint)["global_step"] if checkpoint.is_file() else 0,
        "steps_recorded": int(history["step"][-1]) if history else 0,
        "steps_asked": configuration.settings.steps,
        "settings": configuration.settings.as_dict(),
        "results": _results(folder),
    }


def _results(folder: RunFolder) -> dict[str, Any] | None:
    file = folder.path / "results.json"
    if not file.is_file():
        return None
    try:
        results: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    return results


def in_words(info: dict[str, Any]) -> Iterator[str]:
    """The same for people, line by line."""
    settings = info["settings"]
    shape = "x".join(map(str, info["image_shape"]))
    yield f"{info['run']}: {settings['model']} on {settings['data']} ({shape}), objective {settings['objective']}"
    yield f"{info['steps_saved']} of {info['steps_asked']} steps saved, the last recorded is {info['steps_recorded']}"
    yield "settings:"
    for name, value in settings.items():
        if value not in (None, [], {}):
            yield f"  {name}: {_shown(value)}"
    file = Path(info["run"]) / "results.md"
    if info["results"] is None or not file.is_file():
        yield "results: none yet, the run has not ended"
        return
    yield "results:"
    yield file.read_text().rstrip()


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={each}" for name, each in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)

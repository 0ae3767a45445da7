"""What commands write to stdout, and for whom: people, or programs."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no table; warnings and errors stay.")]
AsJson = Annotated[bool, typer.Option("--json", help="Results as JSON on stdout, and nothing else there.")]


def say(line: str) -> None:
    """A line on stderr, which leaves stdout to the results; once where several processes run a command."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print("geco:", line, file=sys.stderr)


def print_json(values: Mapping[str, Any]) -> None:
    """Values as JSON, which has no number for what is not finite: that is null."""
    print(json.dumps(_finite(values), indent=2))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

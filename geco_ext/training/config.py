"""Settings as a YAML file, whose keys are the names of a command's options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from geco_ext.files import replaced_when_written
from geco_ext.nearest import did_you_mean

OUT = "out"
"""The one key that is no setting: the run folder."""

TRUE, FALSE = ("true", "yes", "on"), ("false", "no", "off")
WORDS = {int: "an integer", float: "a number", bool: "true or false"}


def option_name(of: Field[Any]) -> str:
    """The option that gives a field of settings, without its dashes."""
    return str(of.metadata.get("flag", of.name.replace("_", "-"))).removeprefix("--")


def read_config(file: Path, settings: type) -> dict[str, Any]:
    """The settings that a file gives, by the names of their fields, and ``out``; nothing in it is run.

    A key is the name of an option, or of the field: ``constraint`` or ``constraints``.
    A value is read as the option would read it, whatever YAML takes it for: ``1e-3`` is a number, ``1:30`` a text. What
    is empty or null is left out. An option that may be repeated has a list, ``model-option`` a mapping.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no YAML, no mapping, a key that is no option (the message lists those there are), or a value that
            its option cannot have.
    """
    import yaml

    if not file.is_file():
        raise FileNotFoundError(f"config: no file {file}")
    try:
        content = yaml.load(file.read_text(), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"config {file} is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"config {file} must hold keys and values, such as 'steps: 3000', got {content!r:.50}")
    known = {option_name(each): each.name for each in fields(settings)} | {OUT: OUT}
    understood = {each.name.replace("_", "-"): each.name for each in fields(settings)} | known
    hints = {**get_type_hints(settings), OUT: str}
    given: dict[str, Any] = {}
    for key, value in content.items():
        name = understood.get(str(key).replace("_", "-"))
        if name is None:
            meant = did_you_mean(str(key).replace("_", "-"), known)
            raise ValueError(f"config {file}: unknown key {key!r}{meant}; known are {', '.join(known)}")
        if name in given:
            raise ValueError(f"config {file}: {key} is there twice, in two spellings; give it once")
        if value not in ("", "null", "~"):
            given[name] = _value(f"config {file}: {key}", hints[name], value)
    return given


def _value(what: str, hint: Any, value: Any) -> Any:
    if get_origin(hint) is tuple:
        return tuple(_scalar(what, str, each) for each in (value if isinstance(value, list) else [value]))
    if get_origin(hint) is Mapping:
        if not isinstance(value, dict):
            raise ValueError(f"{what} must be a mapping, such as {{latent: 64}}, got {value!r}")
        return {name: _scalar(f"{what}: {name}", int, each) for name, each in value.items()}
    kind = next((each for each in get_args(hint) if each is not type(None)), hint)
    return _scalar(what, kind, value)


def _scalar(what: str, kind: type, value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"{what} must be one value, got {value!r}")
    try:
        return _switch(value) if kind is bool else kind(value)
    except ValueError:
        raise ValueError(f"{what} must be {WORDS[kind]}, got {value!r}") from None


def _switch(word: str) -> bool:
    if word.lower() not in (*TRUE, *FALSE):
        raise ValueError(word)
    return word.lower() in TRUE


def write_config(file: Path, settings: Any) -> None:
    """Write settings so that :func:`read_config` gives the same ones."""
    import yaml

    content = {}
    for each in fields(settings):
        value = getattr(settings, each.name)
        if value is None or value == () or value == {}:
            continue
        content[option_name(each)] = (
            list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
        )
    with replaced_when_written(file) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000))

from __future__ import annotations


def model_options(texts: list[str]) -> dict[str, int]:
    """Arguments of a model as they are written on the command line, ``latent=64``.

    Raises:
        ValueError: no name, or no integer.
    """
    options = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            options[name] = int(number)
        except ValueError:
            raise ValueError(f"model option must be NAME=INTEGER, got {text!r}") from None
    return options

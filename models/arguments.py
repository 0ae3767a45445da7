"""Checks of what a model is given, with errors that name the argument, what came and what was expected."""

from collections.abc import Sequence

from torch import Tensor


def checked_shape(name: str, shape: Sequence[int], smallest_side: int = 1) -> tuple[int, int, int]:
    """A shape (C, H, W) as a tuple of integers.

    Raises:
        ValueError: not three positive integers, or a height or width below ``smallest_side``.
    """
    extents = tuple(int(extent) for extent in shape)
    if len(extents) != 3 or min(extents) < 1:
        raise ValueError(f"{name}: got {tuple(shape)}, expected three positive integers (C, H, W)")
    channels, height, width = extents
    if min(height, width) < smallest_side:
        raise ValueError(f"{name}: got {extents}, expected height and width of at least {smallest_side}")
    return channels, height, width


def at_least(name: str, value: int, smallest: int) -> None:
    """Raise ValueError where an integer argument is too small."""
    if value < smallest:
        raise ValueError(f"{name}: got {value}, expected at least {smallest}")


def one_of(name: str, value: int, known: Sequence[int]) -> None:
    """Raise ValueError where an integer argument is none of the known values."""
    if value not in known:
        raise ValueError(f"{name}: got {value}, expected {' or '.join(map(str, known))}")


def check_images(x: Tensor, image_shape: tuple[int, int, int]) -> None:
    """Raise ValueError where a batch is not [B, C, H, W] with the model's C, H, W."""
    if x.ndim != 4 or tuple(x.shape[1:]) != image_shape:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected [B, {', '.join(map(str, image_shape))}]")


def check_latents(z: Tensor, latent_size: int) -> None:
    """Raise ValueError where latents are not [B, D] with the model's D."""
    if z.ndim != 2 or z.shape[1] != latent_size:
        raise ValueError(f"z: got shape {tuple(z.shape)}, expected [B, {latent_size}]")


def refuse_context(context: Tensor | None) -> None:
    """Raise ValueError for a context given to a model that takes none."""
    if context is not None:
        raise ValueError(f"context: got a tensor of shape {tuple(context.shape)}, expected None (the model takes none)")


def check_context(context: Tensor | None, context_shape: tuple[int, int, int] | None, batch: int) -> None:
    """Raise ValueError for a context that is missing, not wanted, or of another shape than [batch, C', H', W']."""
    if context_shape is None:
        refuse_context(context)
        return
    expected = (batch, *context_shape)
    if context is None:
        raise ValueError(f"context: got None, expected a tensor of shape {expected} (the model is conditional)")
    if tuple(context.shape) != expected:
        raise ValueError(f"context: got shape {tuple(context.shape)}, expected {expected}")

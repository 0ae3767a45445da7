"""Which tiles windowed constraints are measured in, and the constants that their kernel is compiled for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from geco_ext.contract import Term

LARGEST_SIDE = 128  # of a tile
MAX_PATCH = 48  # where an image is larger than a tile can be
_SIDES = (8, 16, 32, 64, LARGEST_SIDE)
_ALIGNED = 8  # columns: 16 bytes of the smallest numbers
_KNOWN_CHANNELS = 4  # kernels are compiled for up to so many; one serves all larger numbers
_LONGEST_STRIDE = 1 << 30  # beyond any image: one position
# An eps beyond what a type can hold, or divide by, counts as the next one that it can.
_EPS = {False: (2.0**-126, 2.0**124), True: (2.0**-1022, 2.0**1020)}


class Tile(NamedTuple):
    """Rows and columns of a tile, of the halo before what it owns, and of what it owns."""

    shape: tuple[int, int]
    before: tuple[int, int]
    owned: tuple[int, int]

    def number(self, height: int, width: int) -> int:
        """Tiles of an image."""
        return -(-height // self.owned[0]) * -(-width // self.owned[1])


def refuses_patch(patch: int, height: int, width: int) -> str | None:
    """Why no tile serves, or None."""
    if patch <= MAX_PATCH or max(height, width) <= LARGEST_SIDE:
        return None
    return (
        f"in images of more than {LARGEST_SIDE} rows or columns it takes patches of a patch_size of at most "
        f"{MAX_PATCH}, got {patch}"
    )


def best_tile(batch: int, height: int, width: int, patch: int, cells: int, multiprocessors: int) -> Tile:
    """The tile with the least work for the busiest multiprocessor, of at most so many ``cells`` if one serves.

    Work goes by cells: at patches of 8 a tile of 64x64 costs half the instructions for each of its own pixels that
    one of 32x32 does.
    """

    def work(tile: Tile) -> tuple[int, int, int]:
        size = tile.shape[0] * tile.shape[1]
        tiles = batch * tile.number(height, width)
        return max(size, cells), -(-tiles // multiprocessors) * size, tiles * size

    tiles = [
        Tile((rows, columns), (above, left), (down, across))
        for rows in _SIDES
        for columns in _SIDES
        for above, down in [_owned(height, rows, patch, 1)]
        for left, across in [_owned(width, columns, patch, _ALIGNED)]
        if down > 0 and across > 0
    ]
    return min(tiles, key=work)


def _owned(extent: int, side: int, patch: int, aligned: int) -> tuple[int, int]:
    """Along one side of a tile: the halo before what it owns, and that. A tile that holds all has no halo."""
    if extent <= side:
        return 0, side
    before = -(-(patch - 1) // aligned) * aligned
    return before, (side - before - (patch - 1)) // aligned * aligned


class Constants(NamedTuple):
    """See ``windows.windowed``."""

    compute: Any
    slots: int
    tile: Tile
    errors: tuple[int, int, tuple[tuple[str, float], ...]]
    joint: tuple[Any, ...]
    separate: tuple[Any, ...]
    channels: int


def measures_of_terms(terms: Sequence[Term], readers: Sequence[int]) -> tuple[tuple[str, float], ...]:
    """(kind, eps) of what elementwise terms measure of an item."""
    return tuple(dict.fromkeys((terms[t].kind, terms[t].eps) for t in readers if terms[t].is_elementwise))


def slots_of_terms(terms: Sequence[Term], readers: Sequence[int]) -> dict[int, tuple[int, int]]:
    """First slot and number of slots of each term that reads an item: windowed terms come first, one slot each.

    Those that share a measure share its slots; where windows are measured too there is one for each channel if any term
    needs them apart. (Without windows, channels are apart by other means.)
    """
    windowed = [t for t in readers if terms[t].is_windowed]
    measures = measures_of_terms(terms, readers)
    of_measure = max((terms[t].rows for t in readers if terms[t].is_elementwise), default=1) if windowed else 1
    slots = {t: (windowed.index(t), 1) for t in windowed}
    for t in readers:
        if terms[t].is_elementwise:
            number = measures.index((terms[t].kind, terms[t].eps))
            slots[t] = (len(windowed) + number * of_measure, of_measure)
    return slots


def constants(
    terms: Sequence[Term], readers: Sequence[int], channels: int, tile: Tile, compute: Any, is_double: bool, slots: int
) -> Constants:
    """Terms of one size and stride share their statistics; those of a single channel are those of all channels."""
    geometries: dict[tuple[int, int, bool], list[tuple[str, int, float]]] = {}
    of_terms = slots_of_terms(terms, readers)
    for t, (slot, _) in of_terms.items():
        if terms[t].is_windowed:
            joint = channels == 1 or not terms[t].per_channel
            smallest, largest = _EPS[is_double]
            measured = (terms[t].kind, slot, min(max(terms[t].eps, smallest), largest))
            geometry = (terms[t].patch_size, clamped_stride(terms[t]), joint)
            geometries.setdefault(geometry, []).append(measured)
    described: dict[bool, list[Any]] = {True: [], False: []}
    for (size, stride, joint), measured_terms in geometries.items():
        reads_x = any(kind != "local_statistics" for kind, *_ in measured_terms)
        described[joint].append((size, stride, reads_x, tuple(measured_terms)))
    errors = [t for t in readers if terms[t].is_elementwise]
    kind = max((2 if terms[t].rows > 1 else 1 for t in errors), default=0)
    described_errors = (len(of_terms) - len(errors), kind, measures_of_terms(terms, readers))
    known = channels if channels <= _KNOWN_CHANNELS else 0
    windows = tuple(described[True]), tuple(described[False])
    return Constants(compute, slots, tile, described_errors, *windows, known)


def clamped_stride(term: Term) -> int:
    """A stride that fits into 32 bits and leaves the same positions."""
    return min(term.stride, _LONGEST_STRIDE)


def slots_needed(terms: Sequence[Term], readers: Sequence[int]) -> int:
    """One for each windowed term, and for each measure one or one for each channel."""
    return max(first + count for first, count in slots_of_terms(terms, readers).values())

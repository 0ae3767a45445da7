"""What is measured: constraints, the images' shape and type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from geco_ext import AbsoluteError, LocalStatistics, PatchNCC, ReconstructionError, StructuralSimilarity
from geco_ext.constraints import Constraint

Shape = tuple[int, int, int, int]

TINY, SMALL, MEDIUM, LARGE, SINGLE, HUGE = (
    (1, 1, 8, 8),
    (64, 3, 32, 32),
    (64, 3, 64, 64),
    (16, 3, 256, 256),
    (1, 3, 1024, 1024),
    (16, 3, 1024, 1024),
)
STREAM, STREAM_OF_HALVES = (64, 1, 1024, 1024), (128, 1, 1024, 1024)  # 256 MiB a tensor


@dataclass(frozen=True)
class Scenario:
    """One row of the tables."""

    name: str
    shape: Shape
    constraints: Callable[[], list[Constraint]]  # made anew for every criterion
    dtype: torch.dtype = torch.float32
    paper: bool = False  # the paper's update on both sides instead of the default's
    record: bool = False  # every plain form we know, beside those that a claim is measured against
    in_readme: bool = False
    compiled: bool = True  # torch.compile takes part
    masked: bool = False  # a bool weight for each pixel

    @property
    def label(self) -> str:
        """How tables and filters call it."""
        dtype = "" if self.dtype == torch.float32 else f", {str(self.dtype).removeprefix('torch.')}"
        return f"{self.name}, {'x'.join(map(str, self.shape))}{dtype}"

    def shrunken(self) -> Scenario:
        """The same on the smallest images that have several patches, for tests."""
        batch, channels, height, width = self.shape
        return replace(self, shape=(min(batch, 2), channels, min(height, 26), min(width, 29)))


def _re() -> list[Constraint]:
    return [ReconstructionError(0.1)]


def _ae() -> list[Constraint]:
    return [AbsoluteError(0.1)]


def _similarity() -> list[Constraint]:
    return [StructuralSimilarity(0.9, 11)]


def _re_and_ncc(patch: int, stride: int = 1, per_channel: bool = False) -> list[Constraint]:
    return [*_re(), PatchNCC(0.9, patch, stride, per_channel=per_channel)]


def _ncc_per_channel(patch: int) -> list[Constraint]:
    return [PatchNCC(0.9, patch, per_channel=True)]


def _statistics() -> list[Constraint]:
    return [LocalStatistics(0.015, 8)]


def _ncc_and_statistics() -> list[Constraint]:
    return [PatchNCC(0.9, 8), *_statistics()]


def _re_and_statistics() -> list[Constraint]:
    return [*_re(), *_statistics()]


def _combination() -> list[Constraint]:
    return [*_re(), PatchNCC(0.9, 4, name="patch_ncc_4"), PatchNCC(0.9, 8, name="patch_ncc_8"), *_statistics()]


_HALF_TYPES = (torch.bfloat16, torch.float16)
_ncc_8 = partial(Scenario, "RE + pNCC 8", constraints=partial(_re_and_ncc, 8))

SCENARIOS = (
    Scenario("RE", TINY, _re, in_readme=True),
    Scenario("RE, the paper's update", TINY, _re, paper=True),
    Scenario("RE", SMALL, _re),
    Scenario("RE", MEDIUM, _re, in_readme=True),
    Scenario("RE", LARGE, _re, in_readme=True),
    *(Scenario("RE", shape, _re, dtype) for shape in (MEDIUM, LARGE) for dtype in _HALF_TYPES),
    *(Scenario("RE, masked", shape, _re, masked=True) for shape in (TINY, MEDIUM, LARGE)),
    *(Scenario("absolute error", shape, _ae) for shape in (MEDIUM, LARGE)),
    Scenario("RE + pNCC 4", TINY, partial(_re_and_ncc, 4), in_readme=True),
    _ncc_8(SMALL, record=True),
    _ncc_8(MEDIUM, record=True, in_readme=True),
    _ncc_8(LARGE, record=True, in_readme=True),
    _ncc_8(SINGLE, in_readme=True),
    *(_ncc_8(shape, dtype=dtype) for shape in (MEDIUM, LARGE) for dtype in _HALF_TYPES),
    Scenario("RE + pNCC 3", MEDIUM, partial(_re_and_ncc, 3)),
    Scenario("RE + pNCC 16", MEDIUM, partial(_re_and_ncc, 16)),
    Scenario("RE + pNCC 8, stride 4", MEDIUM, partial(_re_and_ncc, 8, 4)),
    Scenario("RE + pNCC 8, stride 8", MEDIUM, partial(_re_and_ncc, 8, 8)),
    Scenario("RE + pNCC 8, per channel", MEDIUM, partial(_re_and_ncc, 8, per_channel=True)),
    Scenario("local statistics 8", MEDIUM, _statistics),
    Scenario("SSIM 11", MEDIUM, _similarity),
    Scenario("RE + local statistics 8", MEDIUM, _re_and_statistics),
    Scenario("pNCC 8 + local statistics 8", MEDIUM, _ncc_and_statistics),
    Scenario("RE + pNCC 4 + pNCC 8 + local statistics 8", MEDIUM, _combination, in_readme=True),
)

_COMBINATION = "RE + pNCC 4 + pNCC 8 + local statistics 8"

# On a GPU, what matters most first: a run of limited time leaves out the end.
GPU_SCENARIOS = (
    Scenario("RE", STREAM, _re, in_readme=True),
    _ncc_8(HUGE, in_readme=True),
    Scenario(_COMBINATION, SMALL, _combination, in_readme=True),
    Scenario("pNCC 11, per channel", HUGE, partial(_ncc_per_channel, 11), in_readme=True, compiled=False),
    Scenario("RE", TINY, _re, in_readme=True),
    Scenario("RE, the paper's update", TINY, _re, paper=True, in_readme=True),
    _ncc_8(MEDIUM, in_readme=True),
    _ncc_8(LARGE, in_readme=True),
    Scenario("RE", LARGE, _re, in_readme=True),
    *(Scenario("RE, masked", shape, _re, masked=True) for shape in (STREAM, MEDIUM, HUGE)),
    Scenario("absolute error", STREAM, _ae),
    Scenario("SSIM 11", HUGE, _similarity, compiled=False),
    Scenario("RE", SMALL, _re, compiled=False),
    Scenario("RE", MEDIUM, _re, compiled=False),
    Scenario("RE", HUGE, _re, compiled=False),
    *(Scenario("RE", STREAM_OF_HALVES, _re, dtype) for dtype in _HALF_TYPES),
    *(_ncc_8(HUGE, dtype=dtype, compiled=False) for dtype in _HALF_TYPES),
    Scenario("RE + pNCC 4", TINY, partial(_re_and_ncc, 4), compiled=False),
    _ncc_8(SMALL, compiled=False),
    Scenario(_COMBINATION, HUGE, _combination, compiled=False),
    Scenario("local statistics 8", HUGE, _statistics, compiled=False),
    Scenario("RE + pNCC 16", HUGE, partial(_re_and_ncc, 16), compiled=False),
    Scenario("RE + pNCC 8, stride 4", HUGE, partial(_re_and_ncc, 8, 4), compiled=False),
    Scenario("RE + local statistics 8", LARGE, _re_and_statistics, compiled=False),
    Scenario("pNCC 8 + local statistics 8", LARGE, _ncc_and_statistics, compiled=False),
)

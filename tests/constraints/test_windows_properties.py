"""Windowed constraints of any geometry, type and layout, several at once: what the oracle computes."""

from typing import NamedTuple

import oracle
import pytest
import torch
from windows import FLOATS, GRADIENT, LAYOUTS, VALUE, Window, doubled, name_of, pair, power_of_two

from geco_ext import GECOLoss, ReconstructionError

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies


class Problem(NamedTuple):
    """A criterion and its images."""

    shape: tuple[int, int, int, int]
    windows: list[Window]
    errors: int  # 0: none, 1: one reconstruction error, 2: one for each channel as well
    training: bool
    dtypes: tuple[torch.dtype, torch.dtype]
    layouts: tuple[str, str]
    brightness: float
    seed: int

    def images(self, device):
        torch.manual_seed(self.seed)
        tensors = (t.detach() + self.brightness for t in pair("random", self.shape, torch.float64))
        moved = (t.to(device, dtype) for t, dtype in zip(tensors, self.dtypes, strict=True))
        x_hat, x = (LAYOUTS[layout](t) for t, layout in zip(moved, self.layouts, strict=True))
        return x_hat.requires_grad_(), x

    def criterion(self):
        errors = [ReconstructionError(0.1), ReconstructionError(0.2, channels=self.shape[1], name="channel")]
        windows = [w.constraint(0.3, f"{name_of(w)} {i}") for i, w in enumerate(self.windows)]
        constraints = [*errors[: self.errors], *windows]
        return GECOLoss(constraints, multiplier_init=self.multipliers()).train(self.training)

    def multipliers(self):
        count = len(self.windows) + [0, 1, 1 + self.shape[1]][self.errors]
        return [0.5 + 0.25 * i for i in range(count)]

    def expected(self, x_hat, x):
        """The constraint vector."""
        errors = [oracle.squared_error(x_hat, x, 0.1), *oracle.squared_error_per_channel(x_hat, x, 0.2)]
        windows = [window.expected(x_hat, x, 0.3) for window in self.windows]
        return torch.stack([*errors[: len(self.multipliers()) - len(windows)], *windows])


@st.composite
def window(draw, largest):
    kind = draw(st.sampled_from(["ncc", "local", "ssim"]))
    patch = draw(st.integers(1, largest))
    stride = draw(st.one_of(st.just(1), st.integers(1, patch + 2)))
    per_channel = kind == "ssim" or (kind == "ncc" and draw(st.booleans()))
    return Window(kind, patch, stride, draw(st.sampled_from([1e-3, 1e-2, 1.0])), per_channel)


@st.composite
def problems(draw, largest_side, largest_patch=64):
    side = st.integers(1, largest_side)
    height, width = draw(side), draw(side)
    float_types, layouts = st.sampled_from(FLOATS), st.sampled_from(list(LAYOUTS))
    return Problem(
        (draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3, 4, 5, 8, 17])), height, width),
        draw(st.lists(window(min(height, width, largest_patch)), min_size=1, max_size=3)),
        draw(st.integers(0, 2)),
        draw(st.booleans()),
        (draw(float_types), draw(float_types)),
        (draw(layouts), draw(layouts)),
        draw(st.sampled_from([0.0, -0.5, 3.0])),
        draw(st.integers(0, 2**31)),
    )


def check(problem, device):
    x_hat, x = problem.images(device)
    y_hat, y = doubled(x_hat, x)
    vector = problem.expected(y_hat, y)
    multipliers = torch.tensor(problem.multipliers(), dtype=torch.float64)
    penalty = (multipliers * vector).sum()
    (expected,) = torch.autograd.grad(penalty, y_hat)
    criterion = problem.criterion().to(device)
    loss = criterion(x_hat, x, torch.zeros((), device=device))
    incoming = power_of_two(1 / max(expected.abs().max().item(), 1e-6))
    (gradient,) = torch.autograd.grad(loss, x_hat, torch.full_like(loss, incoming))
    dtype = problem.dtypes[0]
    tolerance = VALUE.get(dtype, 1e-6)
    size = (multipliers * (1 + vector.detach().abs())).sum().item()
    assert loss.item() == pytest.approx(penalty.item(), abs=tolerance * size)
    if problem.training:
        assert criterion.last_constraint.tolist() == pytest.approx(vector.tolist(), abs=tolerance, rel=tolerance)
    of_windows = multipliers[-len(problem.windows) :].tolist()
    attainable = [m * w.attainable(y_hat.detach()) for m, w in zip(of_windows, problem.windows, strict=True)]
    assert gradient.dtype == dtype
    error = (gradient.double().cpu() / incoming - expected).norm().item()
    assert error <= GRADIENT.get(dtype, 1e-5) * max(expected.norm().item(), *attainable)


def reproducible(examples):
    """The same examples every time."""
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


@pytest.mark.slow
def test_any_problem(backend, device, slow):
    # A compiled kernel has code for every geometry; the interpreter and the reference have one way for all of them.
    largest_side, examples = (12, 12) if slow else (28, {"triton": 30, "reference": 200}.get(backend, 800))

    @reproducible(examples)
    @given(problem=problems(largest_side))
    def as_the_oracle(problem):
        check(problem, device)

    as_the_oracle()


def written(problem, threads):
    """Everything that a step writes."""
    torch.set_num_threads(threads)
    criterion, (x_hat, x) = problem.criterion(), problem.images("cpu")
    loss = criterion(x_hat, x, torch.zeros(()))
    return loss.detach(), torch.autograd.grad(loss, x_hat)[0], criterion._block.nan_to_num()


@reproducible(300)
@given(problem=problems(largest_side=100, largest_patch=12), threads=st.integers(2, 4))
def any_problem_on_any_number_of_threads(problem, threads):
    try:
        results = written(problem, 1), written(problem, threads)
    finally:
        torch.set_num_threads(1)
    for alone, together in zip(*results, strict=True):
        assert torch.equal(alone, together)


@pytest.mark.slow
def test_the_same_bits_for_any_problem_on_any_number_of_threads(cpu_windows):
    any_problem_on_any_number_of_threads()

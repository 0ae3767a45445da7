"""Who takes part in a scenario: this package, plain PyTorch in several forms, the operator alone, the traffic floor.

A candidate's name is its family, or "family: form". A comparison "against eager" or "against torch.compile" is with
the fastest form of that family.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator

import torch
from baselines import Compiled, GECOWithItem, PlainConstraints, PlainGECO, PlainPaperGECO
from scenarios import Scenario
from torch import Tensor
from window_forms import (
    MomentsForm,
    channels_one_by_one,
    doubling,
    pooled,
    rows_then_columns,
    running_sums,
    square,
    unfolded,
)

import geco_ext
from geco_ext.backends.allocation import new_gradient
from geco_ext.contract import IMAGE, LossCall
from geco_ext.ops import dispatch
from geco_ext.ops.loss import loss_and_gradients
from geco_ext.weights import Division, divided

Call = Callable[[], object]

POOLED: dict[str, MomentsForm] = {
    "PxP": pooled(square),
    "1xP, Px1": pooled(rows_then_columns),
}
POOLED_TOGETHER: dict[str, MomentsForm] = {
    "PxP together": pooled(square, together=True),
    "1xP, Px1 together": pooled(rows_then_columns, together=True),
}
HANDMADE: dict[str, MomentsForm] = {
    "doubling": pooled(doubling),
    "running sums": pooled(running_sums),
}
UNFOLDED_ELEMENTS = 45_000_000  # of one image's patches: above it a step takes seconds and gigabytes


class Step:
    """Forward, backward and multiplier update; x_hat and kl are leaves of its own, so all gradients are made."""

    def __init__(self, criterion: Callable[..., Tensor], images: Images, backend: str | None):
        self.criterion, self.x = criterion, images.x
        self.x_hat, self.kl = images.x_hat.clone().requires_grad_(), images.kl.clone().requires_grad_()
        self.backend = backend
        self.weight = {} if images.weight is None else {"weight": images.weight}

    def __call__(self) -> Tensor:
        """The loss; gradients are in ``x_hat.grad`` and ``kl.grad``."""
        if self.backend is None:
            return self._run()
        with geco_ext.use_backend(self.backend):
            return self._run()

    def _run(self) -> Tensor:
        self.x_hat.grad = self.kl.grad = None
        loss = self.criterion(self.x_hat, self.x, self.kl, **self.weight)
        loss.backward()
        return loss


class Images:
    """The tensors of a scenario. A reconstruction of about the demanded quality: multipliers move, none is clipped."""

    def __init__(self, scenario: Scenario, device: torch.device):
        torch.manual_seed(0)
        x = torch.rand(scenario.shape)
        x_hat = x + 0.12 * torch.randn(scenario.shape)
        self.x, self.x_hat = (image.to(device, scenario.dtype) for image in (x, x_hat))
        self.kl = torch.rand(scenario.shape[0]).to(device)
        self.weight = None
        if scenario.masked:
            batch, _, height, width = scenario.shape
            self.weight = (torch.rand(batch, 1, height, width) > 0.3).to(device)


def steps(scenario: Scenario, device: torch.device, compiler: str | None = "inductor") -> dict[str, Step]:
    """All candidates that do a whole step; ``compiler``: what ``torch.compile`` uses, None: leave it out."""
    torch._dynamo.reset()
    images = Images(scenario, device)
    result = {
        "geco_ext": own_step(scenario, device),
        "reference": Step(_ours(scenario, device), images, "reference"),
    }
    for name, constraints in _plain_forms(scenario):
        plain = (PlainPaperGECO if scenario.paper else PlainGECO)(constraints, scenario.shape, device)
        if "eager" in name:
            result[name] = Step(plain, images, None)
        elif compiler is not None and scenario.compiled:
            result[name] = Step(Compiled(plain, compiler), images, None)
    if device.type == "cuda" and _serves("triton", scenario, device):
        if scenario.masked:  # no step of one call, which the next backend would serve
            result["triton"] = Step(_ours(scenario, device), images, "triton")
        else:
            result["triton"] = Step(_on_triton(scenario, device), images, None)
    return result | _others(scenario, device, images)


def _on_triton(scenario: Scenario, device: torch.device) -> geco_ext.GECOLoss:
    """The criterion as it runs where there is no compiled extension: Triton is then the best there is."""
    tried, criterion = _ours(scenario, device), _ours(scenario, device)
    images = Images(scenario, device)
    best = dispatch.best_for
    dispatch.best_for = lambda device: geco_ext.backends.load("triton")
    try:
        criterion._image_calls()  # kept: what serves it is looked up once
        if tried._image_calls().loss(images.x_hat, images.x, images.kl) is None:  # then others would serve it
            raise RuntimeError(f"{scenario.label}: triton does not take it as one call")
    finally:
        dispatch.best_for = best
    return criterion


def _serves(backend: str, scenario: Scenario, device: torch.device) -> bool:
    available = backend in geco_ext.available_backends()
    return available and geco_ext.backends.load(backend).refuses(_call(scenario, device)) is None


def _others(scenario: Scenario, device: torch.device, images: Images) -> dict[str, Step]:
    """GECO as it is found: multipliers as Python numbers; the machinery of Cooper, where it is installed."""
    constraints = scenario.constraints()
    forms = PlainConstraints(constraints, pooled(rows_then_columns))
    if not scenario.paper:
        return {"item": Step(GECOWithItem(forms, scenario.shape, device), images, None)}
    if importlib.util.find_spec("cooper") is None:
        return {}
    from cooper_geco import CooperGECO, Problem

    problem = Problem(forms, len(constraints), device)
    return {"cooper": Step(CooperGECO(problem, PlainPaperGECO.lr), images, None)}


def own_step(scenario: Scenario, device: torch.device) -> Step:
    """This package, on the backend it chooses."""
    return Step(_ours(scenario, device), Images(scenario, device), None)


def operator(scenario: Scenario, device: torch.device) -> Call:
    """The fused operator alone, into buffers allocated as the floor's are: constraint, gradient, update, loss."""
    call = _call(scenario, device)
    return lambda: loss_and_gradients(call)


def _call(scenario: Scenario, device: torch.device) -> LossCall:
    images = Images(scenario, device)
    criterion = _ours(scenario, device)
    return LossCall(
        predictions=[images.x_hat],
        targets=[images.x],
        weights=_weights(images),
        kl=images.kl,
        block=criterion._block,
        terms=criterion._terms,
        owners=(IMAGE,),
        gradients=[new_gradient(images.x_hat), None],
        batch=scenario.shape[0],
        image_elements=images.x[0].numel(),
        update=criterion._settings,
    )


def _weights(images: Images) -> list[Tensor | None]:
    if images.weight is None:
        return [None]
    return [*divided(images.weight, images.x_hat, images.x, [Division(mean=True, per_channel=False)])]


def comparable_losses(scenario: Scenario, device: torch.device) -> dict[str, Call]:
    """Losses of other packages that look through the same windows, forward and backward: no constraint, no update."""
    windows = PlainConstraints(scenario.constraints()).windows
    if device.type != "cuda" or importlib.util.find_spec("fused_ssim") is None:
        return {}
    if [(window.patch, window.per_channel) for window in windows] != [(11, True)] or scenario.dtype != torch.float32:
        return {}
    from fused_ssim import fused_ssim

    images = Images(scenario, device)
    x_hat = images.x_hat.requires_grad_()

    def step() -> None:
        x_hat.grad = None
        fused_ssim(x_hat, images.x, padding="valid").backward()

    step.x_hat = x_hat  # whose gradient is freed before memory is counted
    return {"fused_ssim": step}


def copy(scenario: Scenario, device: torch.device) -> Call:
    """One tensor of the scenario's size read, one written."""
    y, z = (torch.rand(scenario.shape, device=device).to(scenario.dtype) for _ in range(2))
    return lambda: z.copy_(y)


def floor(scenario: Scenario, device: torch.device) -> Call:
    """The bytes the operator must move, by a kernel that does nothing else.

    float32: two images read, one written. Half types: two bytes twice read, four written (the gradient is rounded in
    the backward pass, once, after scaling), which is what a float32 copy of one image moves.
    """
    y, z = torch.rand(scenario.shape, device=device), torch.empty(scenario.shape, device=device)
    if scenario.dtype.itemsize == 2:
        return lambda: z.copy_(y)
    x = torch.rand(scenario.shape, device=device)
    return lambda: torch.add(x, y, out=z)


def _ours(scenario: Scenario, device: torch.device) -> geco_ext.GECOLoss:
    constraints = scenario.constraints()
    if scenario.paper:
        return geco_ext.GECOLoss.paper(constraints, lr=PlainPaperGECO.lr).to(device)
    return geco_ext.GECOLoss.natural(constraints).to(device)


def _plain_forms(scenario: Scenario) -> Iterator[tuple[str, PlainConstraints]]:
    constraints = scenario.constraints()
    if scenario.masked:
        yield from ((f"{family}: masked mean", PlainConstraints(constraints)) for family in ("eager", "compile"))
        return
    if not PlainConstraints(constraints).windows:
        for family in ("eager", "compile"):
            plain = PlainConstraints(constraints)
            yield f"{family}: {plain.errors[0].form}", plain
            # Not float16: the multiplier, some 1e6, is beyond its range where backward multiplies by it.
            if scenario.dtype == torch.bfloat16:
                yield f"{family}: F.mse_loss in bfloat16", PlainConstraints(constraints, native=True)
        return
    eager, compiled = {**POOLED, **POOLED_TOGETHER}, dict(POOLED)
    if scenario.record:
        eager["channels one by one"] = compiled["channels one by one"] = channels_one_by_one
        if _unfolded_elements(scenario) <= UNFOLDED_ELEMENTS:
            eager["unfold"] = unfolded
    families = {"eager": eager, "compile": compiled}
    if scenario.record:
        families |= {"handmade eager": HANDMADE, "handmade compile": HANDMADE}
    for family, forms in families.items():
        for form, moments in forms.items():
            yield f"{family}: {form}", PlainConstraints(constraints, moments)


def _unfolded_elements(scenario: Scenario) -> int:
    batch, channels, height, width = scenario.shape
    window = max(PlainConstraints(scenario.constraints()).windows)
    positions = [(extent - window.patch) // window.stride + 1 for extent in (height, width)]
    return batch * channels * window.patch**2 * positions[0] * positions[1]

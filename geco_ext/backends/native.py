"""What the two compiled backends share: the extension module, and how a call is handed to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch  # first: the extension then shares PyTorch's OpenMP threads
from torch import Tensor

from geco_ext.backends.allocation import empty_like, new_empty, new_loss
from geco_ext.backends.base import PLAIN_TYPES, Backend
from geco_ext.contract import (
    IMAGE,
    KINDS,
    ImageStep,
    LossCall,
    TakenStep,
    UpdateSettings,
    count_rows,
    inputs_of_terms,
    parse_terms,
)
from geco_ext.state import COUNTERS, HIGHEST_MULTIPLE, LOWEST_MULTIPLE, MOST_OF_AN_OUTLIER, OPENING_RATE, ROWS

# The numbers are those of the enums in csrc, and rise from 0.
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64]
TERM_KINDS = {name: number for number, name in enumerate(KINDS)}
SCALE_RULES = {"kappa^2": 0, "1-kappa": 1, "own": 2, "kappa": 3}
VIOLATIONS = {"log": 0, "relative": 1, "raw": 2}

MAX_RANK = 8
MAX_STRIDE = 1 << 40  # beyond any image: one position


@lru_cache(maxsize=1)
def extension() -> tuple[Any, str | None]:
    """The compiled module and None, or None and why it cannot be loaded."""
    try:
        compiled = import_module("geco_ext._C")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "geco_ext._C":
            return None, missing_extension(Path(__file__).resolve().parents[1])
        return None, f"the compiled extension geco_ext._C cannot be imported ({error})"
    if differing := differing_tables(compiled):
        return None, (
            f"the compiled extension {compiled.__file__} was built from other sources than this package ({differing} "
            "differ): build it again, by installing the package"
        )
    compiled.set_torch(
        DTYPES,
        empty_like,
        torch.contiguous_format,
        torch.channels_last,
        list(PLAIN_TYPES),
        getattr(Tensor, "__dlpack_c_exchange_api__", None),
        torch.empty_like,
        torch._C._get_deterministic_algorithms,
    )
    return compiled, None


def missing_extension(package: Path) -> str:
    """What to do about it, for the folder of the package."""
    if (package.parent / "setup.py").is_file() and (package.parent / "csrc" / "contract.h").is_file():
        return (
            f"Python imports the source folder {package}, as it does where it is run beside it, and no extension is "
            "compiled there: run it elsewhere to get the package that is installed, or pip install -e . in the clone"
        )
    return "there is no compiled extension for this Python (GECO_EXT_EXTENSION=OFF leaves it out)"


def differing_tables(compiled: Any) -> str:
    """Names of the tables that C++ and Python both have (``csrc/math/kinds.h``, ...) and that are not the same.

    Their entries go to C++ by number: where one side has another order, kernels would compute something else.
    """
    kinds = tuple(
        {
            "name": name,
            "scale_rule": kind.scale_rule,
            "sign": -1 if kind.scale_rule == "1-kappa" else 1,
            "windowed": kind.is_windowed,
            "elements": kind.elements,
        }
        for name, kind in KINDS.items()
    )
    tables = {
        "kinds": kinds,
        "scale_rules": tuple(SCALE_RULES),
        "violations": tuple(VIOLATIONS),
        "state_rows": ROWS,
        "counters": COUNTERS,
        "multiplier_bounds": (LOWEST_MULTIPLE, HIGHEST_MULTIPLE, OPENING_RATE, MOST_OF_AN_OUTLIER),
        "data_types": tuple(str(dtype).removeprefix("torch.") for dtype in DTYPES),
    }
    return ", ".join(name for name, table in tables.items() if getattr(compiled, name, None) != table)


@lru_cache(maxsize=1024)
def constraint_vector(terms: str, owners: tuple[int, ...]) -> Any:
    """The constraint vector as the extension knows it, built once."""
    parsed = parse_terms(terms)
    compiled = extension()[0].ConstraintVector()
    for term, inputs in zip(parsed, inputs_of_terms(parsed, owners), strict=True):
        compiled.add(
            TERM_KINDS[term.kind],
            term.rows,
            inputs,
            term.mean,
            SCALE_RULES[term.scale_rule],
            term.patch_size,
            min(term.stride, MAX_STRIDE),
            term.eps,
            term.per_channel,
        )
    return compiled


@lru_cache(maxsize=1024)
def multiplier_update(settings: UpdateSettings | None) -> Any:
    """The multiplier update as the extension knows it, built once; None for an evaluation."""
    if settings is None:
        return None
    return extension()[0].MultiplierUpdate(
        settings.alpha,
        settings.lr,
        settings.proportional,
        settings.max_violation,
        VIOLATIONS[settings.violation],
        settings.accumulation_steps,
    )


class Native(Backend):
    """A backend whose operators are functions of a submodule of the extension, named alike."""

    def unavailable(self) -> str | None:
        """Why it cannot run on this machine, or None."""
        return extension()[1]

    def refuses(self, call: LossCall) -> str | None:
        """Why it cannot serve a call of the loss, or None."""
        return super().refuses(call) or _refuses_ranks(call)

    @cached_property
    def kernels(self) -> Any:
        """The submodule."""
        return getattr(extension()[0], self.name)

    def place(self, tensor: Tensor) -> tuple[Any, ...]:
        """Where a call runs: what the extension's functions take last."""
        raise NotImplementedError

    def place_of_loss(self, block: Tensor) -> tuple[Any, ...]:
        """The same for functions of the loss that measure constraints."""
        return self.place(block)

    def places(self, block: Tensor) -> tuple[Callable[[], tuple[Any, ...]], Callable[[], tuple[Any, ...]]]:
        """The two above for a block that stays where it is."""
        return partial(self.place, block), partial(self.place_of_loss, block)

    def place_of_models(self, leader: Tensor) -> tuple[Any, ...]:
        """The same for operators of models."""
        return self.place(leader)

    def lagrangian(self, call: LossCall) -> Tensor:
        """Loss, 0-d; the gradients are written, and with ``call.update`` the state moves."""
        loss = new_loss(call)
        self.kernels.lagrangian(
            *call_arguments(call), loss, multiplier_update(call.update), *self.place_of_loss(call.block)
        )
        return loss

    def constraint_sums(self, call: LossCall) -> Tensor:
        """Sums over the batch of the constraint vector, number of examples; writes the gradients."""
        sums = new_empty(call.block, (count_rows(call.terms) + 1,))
        self.kernels.constraint_sums(*call_arguments(call), sums, *self.place_of_loss(call.block))
        return sums

    def image_step(self, terms: str, update: UpdateSettings | None, block: Tensor) -> ImageStep | None:
        """Calls that look at images alone, as one call into C++."""
        compute, scale, grad_enabled = self.kernels.image_step, self.kernels.image_step_backward, torch.is_grad_enabled
        constraints, moves = constraint_vector(terms, (IMAGE,)), multiplier_update(update)
        place, place_of_loss = self.places(block)

        def forward(x_hat: Tensor, x: Tensor, kl: Tensor) -> TakenStep | None:
            return compute(constraints, moves, x_hat, x, kl, block, grad_enabled(), *place_of_loss())  # type: ignore[no-any-return]

        def backward(kl_gradient: Tensor | None, image_gradient: Tensor | None, incoming: Tensor) -> bool:
            return scale(kl_gradient, image_gradient, incoming, *place())  # type: ignore[no-any-return]

        return ImageStep(forward, backward)

    def scale_gradients(self, gradients: Sequence[Tensor], outputs: Sequence[Tensor], factor: Tensor) -> None:
        """``outputs[i] = gradients[i] * factor``, rounded once."""
        self.kernels.scale_gradients(list(gradients), list(outputs), factor, *self.place(factor))

    def model_operator(self, name: str, leader: Tensor, *arguments: Any) -> Any:
        """The operator of that name."""
        return self._model_operators[name](*arguments, *self.place_of_models(leader))

    @cached_property
    def _model_operators(self) -> dict[str, Any]:
        return {name: function for name, function in vars(self.kernels).items() if callable(function)}


def call_arguments(call: LossCall) -> tuple[Any, ...]:
    """The call in the order in which the extension's functions take it."""
    # A negated view (of a complex tensor) has its sign in a flag that an address does not show.
    return (
        constraint_vector(call.terms, call.owners),
        [prediction.resolve_neg() for prediction in call.predictions],
        [target if target is None else target.resolve_neg() for target in call.targets],
        [weights if weights is None else weights.resolve_neg() for weights in call.weights],
        call.gradients,
        call.kl if call.kl is None else call.kl.resolve_neg(),
        call.block,
        call.batch,
        call.image_elements,
    )


def _refuses_ranks(call: LossCall) -> str | None:
    for prediction in call.predictions:
        if prediction.dim() > MAX_RANK:
            return f"it takes tensors of at most {MAX_RANK} dimensions, got {prediction.dim()}"
    return None

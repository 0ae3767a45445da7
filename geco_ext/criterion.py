"""GECOLoss: the Lagrangian of a constrained variational auto-encoder, with multipliers that set themselves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from geco_ext import state as state_block
from geco_ext.autograd import Call, GlobalLagrangian, Lagrangian, MadeLoss
from geco_ext.backends import image_step
from geco_ext.checks import check_alpha, check_kl, check_positive, check_positive_integer, check_prediction
from geco_ext.constraints import Constraint
from geco_ext.multiplier import MultiplierUpdate
from geco_ext.terms import IMAGE, UpdateSettings, format_terms

Multipliers = float | Sequence[float] | Literal["auto"]
Bounds = tuple[float, float] | Sequence[tuple[float, float]] | Literal["auto"]

_criterion_numbers = itertools.count()


class _Compared(NamedTuple):
    """What the constraints compare: all inputs of one operator call."""

    predictions: list[Tensor]
    targets: list[Tensor | None]
    owners: tuple[int, ...]


@dataclass
class _History:
    """Known without asking the device: whether every multiplier has a value."""

    trained: bool


class GECOLoss(nn.Module):
    r"""Minimise KL under constraints: ``loss = mean(kl) + sum_l lambda_l C_l`` (Algorithm 1 of "Taming VAEs").

    In training mode every call also moves the averages and multipliers, on the device and without waiting for it
    (C_hat the batch average of the constraints, s a constraint's scale, t the step)::

        C_ma  = C_hat                       at t = 0, else  alpha * C_ma + (1 - alpha) * C_hat
        C     = C_hat + stop_gradient(C_ma - C_hat)
        loss  = mean(kl) + sum_l lambda_l * C_l          (lambda before this step's update)
        v     = clip(violation(C_ma, s), -max_violation, +max_violation)
        log lambda <- clip(log lambda + lr * v + proportional * (v - v_previous), log bounds)

    In eval mode ``loss = mean(kl) + sum_l lambda_l C_hat_l`` and nothing moves. A batch whose constraints or kl are
    not finite moves nothing either; it is counted in ``skipped`` and shows in the loss.

    Args:
        constraints: the constraint vector, in order.
        alpha: memory of the moving average, in [0, 1).
        update: how log lambda moves.
        multiplier_init: ``"auto"``: the natural multiplier lambda* = D / (2 s) of each constraint, the Gaussian
            likelihood with sigma = kappa for squared errors over D elements, resolved at the first training call; or
            one number, or one per constraint.
        multiplier_bounds: ``"auto"``: (lambda* / 1000, 3 lambda*), following kappa; or (low, high), or one pair per
            constraint.
        accumulation_steps: calls (micro-batches) per update of the multipliers; C_hat is averaged over them.
        process_group: None: the default group if ``torch.distributed`` runs; False: never communicate. With several
            processes C_hat and the state are those of all examples, and gradients are such that an average over
            processes (DistributedDataParallel) is the gradient of the global mean.

    Shape:
        x_hat, x: [B, ...] float, any strides ([B, C, H, W] for patch constraints); kl: 0-d or [B], nats;
        labels: integers [B]. The loss is 0-d, float32 (float64 for float64).

    Raises:
        ValueError: bad settings or inputs; the state is then unchanged.
        RuntimeError: an eval call before an automatic multiplier was resolved.

    Example:
        >>> criterion = GECOLoss([geco_ext.ReconstructionError(kappa=0.1)])
        >>> x = torch.rand(8, 1, 16, 16)
        >>> x_hat = torch.rand(8, 1, 16, 16, requires_grad=True)
        >>> loss = criterion(x_hat, x, kl=torch.ones(8))
        >>> loss.backward()
        >>> criterion.multiplier.shape
        torch.Size([1])
    """

    log_multiplier: Tensor
    moving_average: Tensor
    violation: Tensor
    kappa: Tensor
    accumulated: Tensor
    accumulated_examples: Tensor
    micro_batches: Tensor
    steps: Tensor
    skipped: Tensor

    def __init__(
        self,
        constraints: Iterable[Constraint],
        alpha: float = 0.99,
        update: MultiplierUpdate | None = None,
        multiplier_init: Multipliers = "auto",
        multiplier_bounds: Bounds = "auto",
        accumulation_steps: int = 1,
        process_group: Any = None,
    ) -> None:
        super().__init__()
        members = _check_constraints(constraints)
        self.constraints = nn.ModuleList(members)
        self.names: tuple[str, ...] = tuple(itertools.chain.from_iterable(map(_row_names, members)))
        self.alpha = check_alpha(alpha)
        self.update = MultiplierUpdate() if update is None else update
        if not isinstance(self.update, MultiplierUpdate):
            raise ValueError(f"update: got {type(update).__name__}, expected a MultiplierUpdate")
        self.accumulation_steps = check_positive_integer(accumulation_steps, "accumulation_steps")
        self.process_group = process_group

        count = len(self.names)
        initial = _per_constraint(multiplier_init, count, "multiplier_init", _check_multiplier)
        bounds = _per_constraint(multiplier_bounds, count, "multiplier_bounds", _check_bounds)
        self._number = next(_criterion_numbers)
        terms = [member._term() for member in members]
        self._terms = format_terms(tuple(terms))
        self._reads_images = any(term.on_image for term in terms)
        self._looking = [pair for pair, term in zip(enumerate(members), terms, strict=True) if not term.on_image]
        self._refusing = [member for member in members if member._checks_images]
        self._images_only = not self._looking and not self._refusing
        self._history = _History(trained="auto" not in initial)
        self._block = state_block.new_block(count)
        self._attach()
        self._fill(members, initial, bounds)

    @classmethod
    def paper(cls, constraints: Iterable[Constraint], lr: float, alpha: float = 0.99) -> GECOLoss:
        """Algorithm 1 to the letter: lambda = 1 at the start, lambda <- lambda exp(lr * C_ma), bounds (1e-10, 1e10)."""
        return cls(
            constraints,
            alpha=alpha,
            update=MultiplierUpdate.paper(lr),
            multiplier_init=1.0,
            multiplier_bounds=(1e-10, 1e10),
        )

    def forward(self, x_hat: Tensor, x: Tensor, kl: Tensor, labels: Tensor | None = None) -> Tensor:
        """The loss; in training mode the state moves by one call."""
        block = self._block
        if self._images_only and self.training and not torch.compiler.is_compiling() and self._group() is None:
            made = image_step(self._terms, self._settings, x_hat, x, kl, block)
            if made is not None:
                self._history.trained = True
                return MadeLoss.apply(made, kl, x_hat)  # type: ignore[no-any-return, no-untyped-call]
        check_prediction(x_hat, x)
        check_kl(kl, x_hat.shape[0], x_hat.device)
        if block.device != x_hat.device:
            raise ValueError(
                f"x_hat: got device {x_hat.device}, the criterion is on {block.device}; move it with criterion.to(...)"
            )
        compared = self._compare(x_hat, x, labels)
        training = self.training
        if not training and not self._history.trained:
            raise RuntimeError(
                "multiplier_init='auto' is resolved at the first training call; call the criterion in training mode "
                "(or load a state) before eval mode"
            )
        grad_enabled = torch.is_grad_enabled()
        batch = x_hat.shape[0]
        call = Call(
            self._terms,
            compared.owners,
            tuple([grad_enabled and t.requires_grad for t in (*compared.predictions, kl)]),
            grad_enabled and any(t is not None and t.requires_grad for t in compared.targets),
            batch,
            x_hat.numel() // batch,
            self._settings if training else None,
        )
        inputs = (*compared.predictions, *compared.targets)
        if not training:
            return Lagrangian.apply(call, block, kl, *inputs)  # type: ignore[no-any-return, no-untyped-call]
        self._history.trained = True
        group = self._group()
        if group is None:
            return Lagrangian.apply(call, block, kl, *inputs)  # type: ignore[no-any-return, no-untyped-call]
        return GlobalLagrangian.apply(group, call, block, kl, *inputs)  # type: ignore[no-any-return, no-untyped-call]

    @property
    def _settings(self) -> UpdateSettings:
        update = self.update
        return UpdateSettings(
            self.alpha,
            update.lr,
            update.proportional,
            update.violation,
            update.max_violation,
            self.accumulation_steps,
        )

    def _compare(self, x_hat: Tensor, x: Tensor, labels: Tensor | None) -> _Compared:
        for constraint in self._refusing:  # all of them, before any network runs
            constraint._check(x_hat, x)
        predictions: list[Tensor] = [x_hat] if self._reads_images else []
        targets: list[Tensor | None] = [x] if self._reads_images else []
        owners = [IMAGE] if self._reads_images else []
        for index, constraint in self._looking:
            for prediction, target in constraint._pairs(x_hat, x, labels):
                predictions.append(prediction)
                targets.append(target)
                owners.append(index)
        return _Compared(predictions, targets, tuple(owners))

    def _group(self) -> Any:
        """The process group to add up over, or None."""
        if self.process_group is False or not torch.distributed.is_available():
            return None
        if not torch.distributed.is_initialized() or torch.distributed.get_world_size(self.process_group) == 1:
            return None
        return self.process_group or torch.distributed.group.WORLD

    # What users look at ------------------------------------------------------------------------------------------

    @property
    def multiplier(self) -> Tensor:
        """Lagrange multipliers, [L] float64, a copy; NaN where an automatic start is not resolved yet."""
        return self.log_multiplier.exp()

    @property
    def last_constraint(self) -> Tensor:
        """C_hat of the last finite training call, [L] float64, a copy; NaN before it."""
        return state_block.views(self._block).last_constraint.clone()

    def metrics(self) -> dict[str, Tensor]:
        """``multiplier/``, ``constraint/``, ``moving_average/`` and ``at_bound/`` of every constraint, 0-d copies.

        ``at_bound`` is 1 where a multiplier rests on its upper bound: the constraint then asks for more than the
        bound lets it have. Does not wait for the device.
        """
        state = state_block.views(self._block)
        groups = {
            "multiplier": self.multiplier,
            "constraint": self.last_constraint,
            "moving_average": self.moving_average.clone(),
            "at_bound": (state.log_multiplier >= state.upper_bound).to(torch.float64),
        }
        return {
            f"{group}/{name}": value
            for group, values in groups.items()
            for name, value in zip(self.names, values.unbind(), strict=True)
        }

    def extra_repr(self) -> str:
        """How averages and multipliers move."""
        return f"alpha={self.alpha:g}, update={self.update}, accumulation_steps={self.accumulation_steps}"

    # The state ---------------------------------------------------------------------------------------------------

    def _fill(
        self,
        members: list[Constraint],
        initial: list[float | Literal["auto"]],
        bounds: list[tuple[float, float] | Literal["auto"]],
    ) -> None:
        state = state_block.views(self._block)
        state.last_constraint.fill_(math.nan)
        row = 0
        for member in members:
            rows = slice(row, row + member.rows)
            state.kappa[rows] = member._kappa
            state.scale[rows] = check_positive(member.scale, f"scale of constraint {member.name!r}")
            state.natural_multiplier[rows] = check_positive(
                member.natural_multiplier, f"natural_multiplier of constraint {member.name!r}"
            )
            row += member.rows
        for index, (start, pair) in enumerate(zip(initial, bounds, strict=True)):
            state.log_multiplier[index] = math.nan if start == "auto" else math.log(start)
            state.log_low[index] = math.nan if pair == "auto" else math.log(pair[0])
            state.log_high[index] = math.nan if pair == "auto" else math.log(pair[1])

    def _attach(self) -> None:
        """Make the rows that users see, and the constraints' kappa, views of the current block."""
        state = state_block.views(self._block)
        for name in (*state_block.PERSISTENT_ROWS, *state_block.PERSISTENT_COUNTERS):
            self._buffers[name] = getattr(state, name)
        row = 0
        for constraint in cast(Iterable[Constraint], self.constraints):
            constraint._bind(self._number, state.kappa[row : row + constraint.rows])
            row += constraint.rows

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GECOLoss:
        """Follow the model to another device; stay float64 whatever dtype is asked for."""
        if recurse:
            for module in self.children():
                module._apply(fn)
        device = fn(torch.empty(0, dtype=torch.float32, device=self._block.device)).device
        if device.type == "mps":
            raise ValueError(f"device: got {device}, which has no float64; GECOLoss keeps its state in float64")
        moved = fn(self._block)
        self._block = moved if moved.dtype == torch.float64 else self._block.to(device)
        self._attach()
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        # Copies: the rows share one block, and a state saved now must not move with the next step.
        for name in (*state_block.PERSISTENT_ROWS, *state_block.PERSISTENT_COUNTERS):
            value = self._buffers[name]
            assert value is not None
            destination[prefix + name] = value if keep_vars else value.detach().clone()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Copy into the block, all rows or none."""
        names = (*state_block.PERSISTENT_ROWS, *state_block.PERSISTENT_COUNTERS)
        found = {name: state_dict[prefix + name] for name in names if prefix + name in state_dict}
        missing_keys.extend(prefix + name for name in names if name not in found)
        wrong = {name: value.shape for name, value in found.items() if value.shape != getattr(self, name).shape}
        for name, shape in wrong.items():
            error_msgs.append(
                f"size mismatch for {prefix}{name}: copying a param with shape {shape} from checkpoint, "
                f"the shape in current model is {getattr(self, name).shape}."
            )
        if strict:
            unexpected_keys.extend(
                key
                for key in state_dict
                if key.startswith(prefix)
                and key[len(prefix) :] not in names
                and key[len(prefix) :].split(".")[0] not in self._modules
            )
        if wrong or (strict and len(found) < len(names)):
            return
        with torch.no_grad():
            for name, value in found.items():
                getattr(self, name).copy_(value)
        self._history.trained = not bool(self.log_multiplier.isnan().any())


def _check_constraints(constraints: Iterable[Constraint]) -> list[Constraint]:
    if isinstance(constraints, Constraint):
        raise ValueError(f"constraints: got one {type(constraints).__name__}, expected a list of constraints")
    members = list(constraints)
    if not members:
        raise ValueError("constraints: got none, expected at least one Constraint")
    for member in members:
        if not isinstance(member, Constraint):
            raise ValueError(f"constraints: got {type(member).__name__}, expected geco_ext.Constraint instances")
    names = [member.name for member in members]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"constraints: got the name {repeated[0]!r} more than once, tell them apart with name=...")
    return members


def _row_names(constraint: Constraint) -> list[str]:
    if getattr(constraint, "channels", None) is None:
        return [constraint.name]
    return [f"{constraint.name}/{channel}" for channel in range(constraint.rows)]


def _per_constraint(value: Any, count: int, argument: str, check: Callable[[Any, str], Any]) -> list[Any]:
    """One setting for all constraints, or one for each."""
    if isinstance(value, str) and value == "auto":
        return ["auto"] * count
    many = isinstance(value, Sequence) and not isinstance(value, str)
    if many and argument == "multiplier_bounds":
        many = any(item == "auto" or isinstance(item, Sequence) for item in value)
    if not many:
        return [check(value, argument)] * count
    if len(value) != count:
        raise ValueError(f"{argument}: got {len(value)} entries, expected one per constraint ({count})")
    return ["auto" if isinstance(item, str) and item == "auto" else check(item, argument) for item in value]


def _check_multiplier(value: Any, argument: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{argument}: got {value!r}, expected 'auto' or positive numbers") from None
    if not math.isfinite(number) or number <= 0.0:
        raise ValueError(f"{argument}: got {value!r}, expected 'auto' or positive numbers")
    return number


def _check_bounds(value: Any, argument: str) -> tuple[float, float]:
    try:
        low, high = (float(bound) for bound in value)
    except (TypeError, ValueError):
        raise ValueError(f"{argument}: got {value!r}, expected 'auto' or pairs 0 < low < high") from None
    if not 0.0 < low < high:
        raise ValueError(f"{argument}: got {value!r}, expected 'auto' or pairs 0 < low < high")
    return low, high

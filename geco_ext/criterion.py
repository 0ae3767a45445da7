"""GECOLoss: the Lagrangian of a constrained variational auto-encoder, with multipliers that set themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from geco_ext import constraints as built_in
from geco_ext import state as state_block
from geco_ext.checks import (
    check_alpha,
    check_kl,
    check_labels_are_no_weights,
    check_positive_integer,
)
from geco_ext.constraints import Constraint
from geco_ext.constraints.base import ToleranceRows
from geco_ext.contract import IMAGE, UpdateSettings, format_terms
from geco_ext.criterion_arguments import (
    Bounds,
    MultiplierRange,
    Multipliers,
    Remarks,
    check_constraints,
    check_images_of_call,
    first_block,
    multiplier_ranges,
)
from geco_ext.loaded_state import warn_of_differences
from geco_ext.multiplier import MultiplierUpdate
from geco_ext.ops.loss import ImageCalls, lagrangian, measured
from geco_ext.state_module import StateModule
from geco_ext.weights import Division, check_weight, divided


class _Compared(NamedTuple):
    """What the constraints compare: all inputs of one operator call."""

    predictions: list[Tensor]
    targets: list[Tensor | None]
    owners: tuple[int, ...]
    weights: list[Tensor | None]  # none at all: of a call without
    terms: str


_SETTINGS = {"alpha", "update", "accumulation_steps"}  # setting one forgets what was looked up for them
_HAS_DISTRIBUTED = torch.distributed.is_available()


class GECOLoss(StateModule):
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
        constraints: the constraint vector, in order; one constraint may stand by itself.
        alpha: memory of the moving average, in [0, 1).
        update: how log lambda moves.
        multiplier_init: ``"auto"``: the natural multiplier of the error that the first update finds, D / (2 (s + C))
            where C > 0, which for squared errors over D elements is what a Gaussian likelihood with the best sigma
            would have. Until it is resolved, by the first update, calls use the lowest multiplier of their own
            inputs, lambda* / 1000. ``"natural"``: that of the tolerance, lambda* = D / (2 s), from the first call on.
            Or one number, or one per constraint.
        multiplier_bounds: ``"auto"``: multiples of the natural multiplier of the average error, D / (2 (s + C_ma))
            while C_ma > 0 and lambda* from then on; of an outlier no more than twice the error beside it counts. The
            lower is a thousandth; the upper is 1 at first (2 of a constraint of one's own) and opens to 3, by 0.2% in a
            step in which it is in the way. (A multiplier that goes for a tight tolerance from the first step on buys it
            with a KL of which training does not get rid again.) ``"natural"``: a thousandth and three times lambda*.
            Both follow kappa. Or (low, high), or one pair per constraint.
        accumulation_steps: calls (micro-batches) per update of the multipliers; C_hat is averaged over them, each
            counting by its number of examples, whatever their weights.
        process_group: None: the default group if ``torch.distributed`` runs; False: never communicate. With several
            processes C_hat and the state are those of all examples, and gradients are such that an average over
            processes (DistributedDataParallel) is the gradient of the global mean.

    Shape:
        x_hat, x: [B, ...] float, any strides ([B, C, H, W] for patch constraints), in any units, which are those of
        kappa: 0.1 of images in [0, 1] is 25.5 of images in [0, 255], and nothing tells the two apart; kl: 0-d, [B] or
        [B, 1], nats; labels: integers [B], also where no constraint reads them; what looks like weights in their place
        is refused. The loss is 0-d, float32 (float64 for float64).
        weight: bool or float >= 0, [B, 1, ...] or the shape of x_hat. C of an example is then the weighted mean
        sum(w e) / sum(w) of its errors e (or their weighted sum, with ``reduction="sum"``; each channel by itself, with
        ``channels``) minus the tolerance, and C_hat the average over the examples with sum(w) > 0 (of all processes,
        each of which has to pass weights then). Where w = 0, x and x_hat do not matter, not even if they are NaN, and
        the gradient is zero. Weights get no gradient and leave natural multipliers as they are.

    Raises:
        ValueError: bad settings or inputs, weights beside a constraint that cannot weigh (one of patches, FRE, CLA)
            among them; the state is then unchanged. Values of weights are looked at on the CPU; on a GPU negative or
            non-finite ones make the constraint NaN, as a batch without any weight does everywhere: it is skipped.
        RuntimeError: a forward-mode or a second derivative is asked for.

    Note:
        The training calls of a criterion belong on one CUDA stream, since each moves its state: two that overlap on
        two streams are not supported. Calls in eval mode only read it and may run beside them on another stream; they
        see the multipliers from before or from after a step. Different criteria do not disturb each other on any.

    Example:
        >>> criterion = GECOLoss([geco_ext.ReconstructionError(kappa=0.1)])
        >>> x = torch.rand(8, 1, 16, 16)
        >>> x_hat = torch.rand(8, 1, 16, 16, requires_grad=True)
        >>> loss = criterion(x_hat, x, kl=torch.ones(8))
        >>> loss.backward()
        >>> criterion.multiplier.shape
        torch.Size([1])
    """

    def __init__(
        self,
        constraints: Constraint | Iterable[Constraint],
        alpha: float = 0.99,
        update: MultiplierUpdate | None = None,
        multiplier_init: Multipliers = "auto",
        multiplier_bounds: Bounds = "auto",
        accumulation_steps: int = 1,
        process_group: Any = None,
    ) -> None:
        super().__init__()
        members = check_constraints(constraints)
        self.names: tuple[str, ...] = tuple(name for member in members for name in member._row_names())
        self.alpha = check_alpha(alpha)
        self.update = MultiplierUpdate() if update is None else update
        if not isinstance(self.update, MultiplierUpdate):
            raise ValueError(f"update: got {type(update).__name__}, expected a MultiplierUpdate")
        self.accumulation_steps = check_positive_integer(accumulation_steps, "accumulation_steps")
        self.process_group = process_group

        ranges = multiplier_ranges(multiplier_init, multiplier_bounds, len(self.names))
        terms = [member._term() for member in members]
        self._terms = format_terms(tuple(terms))
        # The images may be listed for each constraint by itself, where their weights are divided in several ways.
        self._terms_apart = format_terms(tuple(replace(term, on_image=False) for term in terms))
        self._divisions = {index: Division.of(term) for index, term in enumerate(terms) if term.on_image}
        self._reads_images = any(term.on_image for term in terms)
        # Constraints that compare something else than the images themselves, with their place in the vector.
        self._not_on_images = [pair for pair, term in zip(enumerate(members), terms, strict=True) if not term.on_image]
        self._with_image_checks = [member for member in members if member._checks_images]
        self._takes_image_step = not self._not_on_images and all(member._term_tells for member in members)
        self._ranges = ranges
        self._remarks = Remarks()
        self.constraints = nn.ModuleList(members)
        self._block = self._new_block()
        self._attach()

    @classmethod
    def natural(cls, constraints: Constraint | Iterable[Constraint], **settings: Any) -> GECOLoss:
        """The multiplier starts at lambda* = D / (2 s) of the tolerance and stays between lambda* / 1000 and 3 lambda*.

        What the default was before it followed the error. It goes for the tolerance from the first step on, and buys it
        with a KL of which it does not get rid again.

        Args:
            constraints: the constraint vector.
            settings: other arguments of the class, but the two that say so.

        Raises:
            ValueError: as the class; ``multiplier_init`` or ``multiplier_bounds`` is given.
        """
        for name in ("multiplier_init", "multiplier_bounds"):
            if name in settings:
                raise ValueError(
                    f"{name}: got {settings[name]!r}, expected none, since GECOLoss.natural sets it; give it to "
                    "GECOLoss, whose automatic values are those of natural where it says 'natural'"
                )
        return cls(constraints, multiplier_init="natural", multiplier_bounds="natural", **settings)

    @classmethod
    def paper(cls, constraints: Constraint | Iterable[Constraint], lr: float, alpha: float = 0.99) -> GECOLoss:
        """Algorithm 1 to the letter: lambda = 1 at the start, lambda <- lambda exp(lr * C_ma), bounds (1e-10, 1e10)."""
        return cls(
            constraints,
            alpha=alpha,
            update=MultiplierUpdate.paper(lr),
            multiplier_init=1.0,
            multiplier_bounds=(1e-10, 1e10),
        )

    def forward(
        self, x_hat: Tensor, x: Tensor, kl: Tensor, labels: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        """The loss; in training mode the state moves by one call."""
        if labels is not None:
            check_labels_are_no_weights(labels, x_hat)
        if torch.compiler.is_compiling():
            return self._loss(x_hat, x, kl, labels, weight, self._block)
        if not self._buffers_are_views():
            with self._block_of_buffers() as block:
                return self._loss(x_hat, x, kl, labels, weight, block)
        if self.training:
            is_alone = self._group() is None
        else:
            is_alone = True  # nothing is added up
            self._remarks.on_eval_call(x_hat)
        if is_alone and weight is None and self._takes_image_step:
            loss = self._image_calls().loss(x_hat, x, kl)
            if loss is not None:
                return loss
        return self._loss(x_hat, x, kl, labels, weight, self._block)

    def _loss(
        self, x_hat: Tensor, x: Tensor, kl: Tensor, labels: Tensor | None, weight: Tensor | None, block: Tensor
    ) -> Tensor:
        """The path of all calls."""
        update = self._settings if self.training else None
        group = self._group() if self.training else None
        check_images_of_call(x_hat, x, block.device)
        kl = check_kl(kl, x_hat.shape[0], x_hat.device)
        if self.training:
            self._remarks.on_training_call(x_hat, x)
        predictions, targets, owners, weights, terms = self._compare(x_hat, x, labels, weight, group)
        batch = x_hat.shape[0]
        elements = x_hat.numel() // batch
        loss = lagrangian(predictions, targets, owners, kl, block, terms, batch, elements, update, group, weights)
        return _of_the_images(loss, x_hat)

    @torch.no_grad()
    def evaluate(
        self,
        x_hat: Tensor,
        x: Tensor,
        kl: Tensor | None = None,
        labels: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """What these inputs come to, for validation: nothing moves, whatever the mode, or waits for the device.

        Takes what a call takes; several processes get the values of their own inputs each. Constraints of one's own,
        and modules in them, are in eval mode meanwhile.

        Returns:
            ``constraint/NAME`` of every constraint, the average over these examples (met at 0 and below), float64; with
            a kl also ``kl``, its mean, and ``loss``, that of eval mode, at the present multipliers (without what the
            ``forward`` of a subclass adds). All are 0-d.

        Example:
            >>> criterion = GECOLoss([geco_ext.ReconstructionError(kappa=0.1)])
            >>> x = torch.zeros(8, 1, 16, 16)
            >>> {name: round(float(value), 6) for name, value in criterion.evaluate(x + 0.2, x).items()}
            {'constraint/reconstruction_error': 0.03}
        """
        if torch.compiler.is_compiling() or self._buffers_are_views():
            return self._evaluated(x_hat, x, kl, labels, weight, self._block)
        with self._block_of_buffers() as block:
            return self._evaluated(x_hat, x, kl, labels, weight, block)

    def _evaluated(
        self, x_hat: Tensor, x: Tensor, kl: Tensor | None, labels: Tensor | None, weight: Tensor | None, block: Tensor
    ) -> dict[str, Tensor]:
        check_images_of_call(x_hat, x, block.device)
        check_labels_are_no_weights(labels, x_hat)
        batch, elements = x_hat.shape[0], x_hat[0].numel()
        if kl is not None:
            kl = check_kl(kl, batch, x_hat.device)
        in_training = [module for module in self.constraints.modules() if module.training]
        for module in in_training:  # dropout, running means
            module.training = False
        try:
            predictions, targets, owners, weights, terms = self._compare(x_hat, x, labels, weight, None)
        finally:
            for module in in_training:
                module.training = True
        averages, loss = measured(predictions, targets, owners, kl, block, terms, batch, elements, weights)
        values = {f"constraint/{name}": value for name, value in zip(self.names, averages.unbind(), strict=True)}
        if kl is not None and loss is not None:
            values |= {"kl": kl.mean(), "loss": _of_the_images(loss, x_hat)}
        return values

    def _image_calls(self) -> ImageCalls:
        """Those of the present mode."""
        calls: ImageCalls | None = self._known.get(self.training)
        if calls is None:
            if self.training:
                self._remarks.has_trained = True
                calls = ImageCalls(self._terms, self._settings, self._block, self._remarks.on_call_without_gradient)
            else:
                calls = ImageCalls(self._terms, None, self._block)
            if self.__dict__.keys() >= _SETTINGS:  # not where a subclass makes one of them a property
                self._known[self.training] = calls
        return calls

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

    def _compare(self, x_hat: Tensor, x: Tensor, labels: Tensor | None, weight: Tensor | None, group: Any) -> _Compared:
        """The inputs of all constraints: the images first, for those that read them, then what the others compare."""
        for constraint in self._with_image_checks:  # all of them, before any network runs
            constraint._check(x_hat, x)
        owners = [IMAGE] if self._reads_images else []
        weights: list[Tensor | None] = []
        terms = self._terms
        if weight is not None:
            self._check_weight(weight, x_hat)
            divisions = list(dict.fromkeys(self._divisions.values()))
            of_divisions = divided(weight, x_hat, x, divisions, group) if divisions else []
            weights.extend(of_divisions)
            if len(divisions) > 1:
                terms, owners = self._terms_apart, list(self._divisions)
                weights = [_alias(of_divisions[divisions.index(division)]) for division in self._divisions.values()]
        several = len(owners) > 1
        predictions: list[Tensor] = [_alias(x_hat) if several else x_hat for _ in owners]
        targets: list[Tensor | None] = [_alias(x) if several else x for _ in owners]
        for index, constraint in self._not_on_images:
            for prediction, target in constraint._pairs(x_hat, x, labels, weight):
                predictions.append(prediction)
                targets.append(target)
                owners.append(index)
                if weight is not None:
                    weights.append(None)
        return _Compared(predictions, targets, tuple(owners), weights, terms)

    def _check_weight(self, weight: Tensor, x_hat: Tensor) -> None:
        for member in cast(Iterable[Constraint], self.constraints):
            if not member._weighs:
                weighing = ", ".join(name for name in built_in.__all__ if getattr(built_in, name)._weighs)
                raise ValueError(
                    f"weight: got one beside constraint {member.name!r}, expected constraints that can weigh elements "
                    f"({weighing}, or a forward with a parameter weight)"
                )
        check_weight(weight, x_hat)

    def _group(self) -> Any:
        """The process group to add up over, or None."""
        if self.process_group is False or not _HAS_DISTRIBUTED or not torch.distributed.is_initialized():
            return None
        size = torch.distributed.get_world_size(self.process_group)
        if size < 1:
            raise ValueError("process_group: got a group this process is not a member of, expected its own or False")
        return None if size == 1 else self.process_group or torch.distributed.group.WORLD

    # What users look at ------------------------------------------------------------------------------------------

    @property
    def multiplier(self) -> Tensor:
        """Lagrange multipliers, [L] float64, a copy; NaN where an automatic start is not resolved yet."""
        return self.log_multiplier.exp()

    @property
    def last_constraint(self) -> Tensor:
        """C_hat of the last finite training call since construction or loading, [L] float64, a copy; NaN before it."""
        return state_block.views(self._block).last_constraint.clone()

    def metrics(self) -> dict[str, Tensor]:
        """``multiplier/``, ``constraint/``, ``moving_average/``, ``at_bound/``, ``kappa/`` of each constraint, copies.

        They tell of training calls, also in eval mode: ``constraint`` is that of the last training batch; what other
        inputs come to is told by :meth:`evaluate`. ``skipped`` counts the training calls so far in which a constraint
        or kl was not finite: a loop that skips the optimiser step there, as ``torch.amp.GradScaler`` does, looks at it
        now and then. ``at_bound`` is 1 where a multiplier rests on its upper bound: the constraint then asks for more
        than the bound lets it have. Does not wait for the device.

        A ``state_dict`` has neither the last batch nor the bounds: after loading one, ``constraint`` is NaN until the
        next training call, and ``at_bound``, where the bounds are automatic, until the next update.
        """
        state = state_block.views(self._block)
        at_bound = (state.log_multiplier >= state.upper_bound).to(torch.float64)
        # An automatic bound follows the size of the images, which is known at the first update here.
        is_unknown = state.log_high.isnan() & state.upper_bound.isinf() & (state.steps > 0)
        groups = {
            "multiplier": self.multiplier,
            "constraint": self.last_constraint,
            "moving_average": self.moving_average.clone(),
            "at_bound": at_bound.masked_fill_(is_unknown, math.nan),
            "kappa": self.kappa.clone(),
        }
        values = {
            f"{group}/{name}": value
            for group, values in groups.items()
            for name, value in zip(self.names, values.unbind(), strict=True)
        }
        return {**values, "skipped": self.skipped.to(torch.float64)}

    def extra_repr(self) -> str:
        """How averages and multipliers move."""
        return f"alpha={self.alpha:g}, update={self.update}, accumulation_steps={self.accumulation_steps}"

    # The state ---------------------------------------------------------------------------------------------------

    def _new_block(self) -> Tensor:
        ranges = self.__dict__.get("_ranges")
        if ranges is None:  # of a pickle from before there was another rule than the natural one
            starts, bounds = cast(Any, self._start)
            ranges = [MultiplierRange(*pair, follows_error=False) for pair in zip(starts, bounds, strict=True)]
        return first_block(list(cast(Iterable[Constraint], self.constraints)), ranges)

    def _bind(self, block: Tensor) -> None:
        state = state_block.views(block)
        for member, rows in self._members():
            member._bind(self, ToleranceRows(*(getattr(state, name)[rows] for name in ToleranceRows._fields)))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a pickle from before there were remarks it is not known whether it has trained."""
        super().__setstate__({"_remarks": Remarks(has_trained=True), **state})

    def _has_loaded(self) -> None:
        self._remarks.has_trained = True
        for member in cast(Iterable[Constraint], self.constraints):
            member._read_state()  # a schedule among it, before a call is compiled that would take kappa for a constant

    def _about_to_load(self, rows: Mapping[str, Tensor]) -> None:
        warn_of_differences(self, list(self._members()), rows)

    def _members(self) -> Iterator[tuple[Constraint, slice]]:
        """The constraints and their rows."""
        row = 0
        for member in cast(Iterable[Constraint], self.constraints):
            yield member, slice(row, row + member._rows)
            row += member._rows


def _of_the_images(loss: Tensor, x_hat: Tensor) -> Tensor:
    """What a constraint returns may have another type than the images; the loss has theirs."""
    return loss.to(torch.float64 if x_hat.dtype == torch.float64 else torch.float32)


def _alias(tensor: Tensor) -> Tensor:
    """The same numbers: torch.compile does not take one tensor for several arguments of an autograd Function."""
    return tensor.view_as(tensor)

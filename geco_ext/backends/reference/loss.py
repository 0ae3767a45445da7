"""Every operator in plain PyTorch, in float64, on any device: the formulas to read, and the oracle of the tests.

Gradients are written out rather than left to autograd, because an operator runs below it. Nothing here waits for the
device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from geco_ext.backends.allocation import loss_dtype
from geco_ext.backends.reference.windows import MEASURES
from geco_ext.contract import KINDS, LossCall, Term, UpdateSettings, inputs_of_terms, parse_terms
from geco_ext.state import HIGHEST_MULTIPLE, LOWEST_MULTIPLE, MOST_OF_AN_OUTLIER, OPENING_RATE, State, views

SMALLEST = 1e-12  # scales and shares of the tolerance below it count as it


def lagrangian(call: LossCall) -> Tensor:
    """The loss; writes the gradients, and with ``call.update`` the state moves."""
    averages = _constraint_averages(call)
    kl = _mean_kl(call)
    if call.update is None:
        penalty = (_log_multiplier(call).exp() * averages).sum()
    else:
        penalty = _update_state(call, call.update, averages, torch.isfinite(kl), call.batch)
    return (kl + penalty).to(loss_dtype(call.predictions))


def constraint_sums(call: LossCall) -> Tensor:
    """Sums over the batch of the constraint vector, then the number of examples; writes the gradients."""
    averages = _constraint_averages(call)
    kl = _mean_kl(call)
    # A kl that is not finite makes every sum NaN, so that all processes skip the step.
    sums = averages * call.batch + torch.where(torch.isfinite(kl), 0.0, torch.nan)
    return torch.cat([sums, sums.new_full((1,), call.batch)])


def update_from_sums(call: LossCall, sums: Tensor, world_size: int) -> tuple[Tensor, Tensor]:
    """The loss and the factor of all gradients, from sums over all processes; the state moves."""
    assert call.update is not None
    examples = sums[-1]
    averages = sums[:-1] / examples
    factor = world_size * call.batch / examples
    finite = torch.ones((), dtype=torch.bool, device=sums.device)
    penalty = _update_state(call, call.update, averages, finite, examples.to(torch.int64))
    loss = _mean_kl(call) * factor + penalty
    return loss.to(loss_dtype(call.predictions)), factor


def scale_gradients(gradients: Sequence[Tensor], outputs: Sequence[Tensor], factor: Tensor) -> None:
    """``outputs[i] = gradients[i] * factor``, rounded once."""
    for gradient, output in zip(gradients, outputs, strict=True):
        output.copy_(gradient * factor.to(gradient.dtype))


# The constraint vector and its gradient ------------------------------------------------------------------------------


class _Measured(NamedTuple):
    """A term's rows before the tolerance is applied, [rows], and d rows / d prediction for each of its inputs."""

    rows: Tensor
    derivatives: list[Tensor]


def _constraint_averages(call: LossCall) -> Tensor:
    """C_hat, [L] float64; writes d (lambda^T C_hat + mean kl) / d input for each input that wants it."""
    terms = parse_terms(call.terms)
    state = views(call.block)
    multipliers = _log_multiplier(call).exp()
    gradients = [torch.zeros_like(p, dtype=torch.float64) for p in call.predictions]
    averages = []
    row = 0
    for term, inputs in zip(terms, inputs_of_terms(terms, call.owners), strict=True):
        rows = slice(row, row + term.rows)
        row += term.rows
        measured = _measure(term, call, inputs)
        averages.append(constraint_value(term.scale_rule, measured.rows, state.kappa[rows]))
        sign = -1.0 if term.scale_rule == "1-kappa" else 1.0
        for index, derivative in zip(inputs, measured.derivatives, strict=True):
            per_channel = (-1, *[1] * (derivative.dim() - 2))
            multiplier = multipliers[rows].view(per_channel if term.rows > 1 else ())
            gradients[index] += sign * multiplier * derivative
    for gradient, buffer in zip(gradients, call.gradients, strict=False):
        if buffer is not None:
            buffer.copy_(gradient)
    kl_gradient = call.gradients[-1]
    if kl_gradient is not None:
        kl_gradient.fill_(1.0 / kl_gradient.numel())
    return torch.cat(averages)


def constraint_value(scale_rule: str, measured: Tensor, kappa: Tensor) -> Tensor:
    """Table 1: an error minus its tolerance, kappa minus a similarity, a scalar as it is."""
    if scale_rule == "kappa^2":
        return measured - kappa**2
    if scale_rule == "1-kappa":
        return kappa - measured
    return measured - kappa if scale_rule == "kappa" else measured


def _measure(term: Term, call: LossCall, inputs: list[int]) -> _Measured:
    predictions = [call.predictions[i].to(torch.float64) for i in inputs]
    if term.is_scalar:
        (value,) = predictions
        return _Measured(value.mean().reshape(1), [torch.full_like(value, 1.0 / max(value.numel(), 1))])
    targets = [call.targets[i] for i in inputs]
    pairs = [(p, t.to(torch.float64)) for p, t in zip(predictions, targets, strict=True) if t is not None]
    if term.is_elementwise:
        return _elementwise(pairs, [call.weights[i] for i in inputs], term)
    ((x_hat, x),) = pairs
    value, derivative = MEASURES[term.kind](x_hat, x, term.patch_size, term.stride, term.eps, term.per_channel)
    return _Measured(value.reshape(1), [derivative])


def _squared_difference(difference: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """RE and FRE: d^2."""
    return difference.square(), 2.0 * difference


def _absolute_difference(difference: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """sqrt(d^2 + eps^2) - eps, without the difference of two numbers that are nearly equal."""
    root = (difference.square() + eps**2).sqrt()
    return difference.square() / (root + eps), difference / root


# What is measured of each difference: its value and the derivative.
_DIFFERENCES = {"squared_error": _squared_difference, "absolute_error": _absolute_difference}


def _elementwise(pairs: list[tuple[Tensor, Tensor]], weights: list[Tensor | None], term: Term) -> _Measured:
    """The error of an example, averaged over the batch; several pairs: a mean of means, or sums with given weights."""
    rows = []
    derivatives = []
    for (prediction, target), of_elements in zip(pairs, weights, strict=True):
        difference = prediction - target
        per_example = difference[0].numel() / term.rows
        weight = 1.0 / (len(pairs) * per_example) if term.mean and of_elements is None else 1.0
        value, derivative = _DIFFERENCES[term.kind](difference, term.eps)
        if of_elements is not None:
            value, derivative = (torch.where(of_elements == 0, 0.0, of_elements * v) for v in (value, derivative))
        total = value.sum(dim=[d for d in range(value.dim()) if d != 1]) if term.rows > 1 else value.sum()
        rows.append(weight * total.reshape(term.rows) / difference.shape[0])
        derivatives.append(weight * derivative / difference.shape[0])
    return _Measured(torch.stack(rows).sum(0), derivatives)


def _mean_kl(call: LossCall) -> Tensor:
    if call.kl is None:
        return torch.zeros((), dtype=torch.float64, device=call.block.device)
    return call.kl.to(torch.float64).mean()


# The state ------------------------------------------------------------------------------------------------------------


def compared_elements(call: LossCall) -> list[float]:
    """D of lambda* = D / (2 s) for each term."""
    terms = parse_terms(call.terms)
    result = []
    for term, inputs in zip(terms, inputs_of_terms(terms, call.owners), strict=True):
        rule = KINDS[term.kind].elements
        elements = float(call.image_elements)
        if term.is_elementwise:
            elements = sum(call.predictions[i][0].numel() for i in inputs) / term.rows
            elements *= 2.0 if rule == "2 inputs" else 1.0
        elif rule == "2 per position":
            height, width = call.predictions[inputs[0]].shape[-2:]
            elements = 2.0 * term.positions(height) * term.positions(width)
        result.append(elements)
    return result


def _scales(call: LossCall, state: State) -> Tensor:
    """S of every row, [L]."""
    scales = []
    row = 0
    for term in parse_terms(call.terms):
        rows = slice(row, row + term.rows)
        row += term.rows
        kappa = state.kappa[rows]
        given = state.scale[rows]
        own = torch.where(given.isnan(), torch.where(kappa > 0.0, kappa, 1.0), given)
        rules = {"kappa^2": kappa**2, "1-kappa": 1.0 - kappa, "own": own, "kappa": kappa}
        scales.append(rules[term.scale_rule])
    return torch.cat(scales).clamp_min(SMALLEST)


def _natural_log_multiplier(call: LossCall) -> Tensor:
    """Log lambda*, [L]: lambda* = D / (2 s), or what a constraint of a user's own gives."""
    state = views(call.block)
    scales = _scales(call, state)
    result = []
    row = 0
    for term, elements in zip(parse_terms(call.terms), compared_elements(call), strict=True):
        rows = slice(row, row + term.rows)
        row += term.rows
        natural = elements / (2.0 * scales[rows])
        if term.scale_rule == "own":
            given = state.natural_multiplier[rows]
            natural = torch.where(given.isnan(), natural, given)
        result.append(natural)
    return torch.cat(result).log()


def _log_multiplier(call: LossCall) -> Tensor:
    """Log lambda before this step; the lowest, or lambda*, until the first update resolves an automatic start."""
    state = views(call.block)
    natural = _natural_log_multiplier(call)
    elements = zip(parse_terms(call.terms), compared_elements(call), strict=True)
    of_one = natural.new_tensor([math.log(count / 2.0) for term, count in elements for _ in range(term.rows)])
    lowest = torch.minimum(natural + math.log(LOWEST_MULTIPLE), of_one)
    lowest = torch.where(lowest < state.log_low, state.log_low, lowest)  # NaN: none is given
    lowest = torch.where(lowest > state.log_high, state.log_high, lowest)
    start = torch.where(state.follows_error != 0, lowest, natural)
    return torch.where(state.log_multiplier.isnan(), start, state.log_multiplier)


def _clipped_violation(update: UpdateSettings, average: Tensor, scales: Tensor) -> Tensor:
    violation = {
        "log": (1.0 + average / scales).clamp_min(SMALLEST).log(),
        "relative": average / scales,
        "raw": average,
    }[update.violation]
    return violation.clamp(-update.max_violation, update.max_violation)


def _update_state(
    call: LossCall, update: UpdateSettings, c_hat: Tensor, kl_is_finite: Tensor, batch: Tensor | int
) -> Tensor:
    """Algorithm 1 after the constraints are known. Moves the state, returns sum_l lambda_l C_l (lambda before it)."""
    # As kernels do, without a mark in the block's version: that says whether anybody else has written kappa.
    state = views(call.block.data)
    log_multiplier = _log_multiplier(call)
    natural = _natural_log_multiplier(call)
    scales = _scales(call, state)

    finite = kl_is_finite & c_hat.isfinite().all()
    first = state.steps == 0
    micro_batches = state.micro_batches + 1
    complete = micro_batches >= update.accumulation_steps
    examples = state.accumulated_examples + torch.where(finite, batch, 0)
    updates = complete & (examples > 0)
    alone = finite & (examples == batch)
    accumulated = torch.where(finite, state.accumulated + c_hat * batch, state.accumulated)

    step_average = torch.where(alone, c_hat, accumulated / examples)
    average = torch.where(first, step_average, update.alpha * state.moving_average + (1 - update.alpha) * step_average)
    v = _clipped_violation(update, average, scales)
    v_previous = torch.where(first, v, state.violation)
    follows_error = state.follows_error != 0
    # Of an outlier, which stays in the average for hundreds of steps, no more than twice the error beside it counts.
    beside = torch.minimum(step_average, torch.where(first, step_average, state.moving_average))
    excess = torch.minimum(_log_excess(average, scales), _log_excess(beside, scales) + math.log(MOST_OF_AN_OUTLIER))
    excess = torch.where(follows_error, excess, 0.0)
    natural = natural - excess
    start = torch.where(state.log_multiplier.isnan(), natural, state.log_multiplier)
    moved = start + update.lr * v + update.proportional * (v - v_previous)
    low = torch.where(state.log_low.isnan(), natural + math.log(LOWEST_MULTIPLE), state.log_low)
    automatic = state.log_high.isnan()
    widest = math.log(HIGHEST_MULTIPLE)
    opening = torch.where(follows_error, state.bound_opening, widest)
    opening = torch.where(moved > natural + opening, opening + OPENING_RATE, opening)
    opening = opening.clamp_max(widest)
    high = torch.where(automatic, natural + opening, state.log_high)
    moved = moved.clamp(low, high)

    shown = torch.where(updates, average, torch.where(first, c_hat, state.moving_average))
    penalty = (log_multiplier.exp() * torch.where(finite, shown, c_hat)).sum()

    state.log_multiplier.copy_(torch.where(updates, moved, state.log_multiplier))
    state.moving_average.copy_(torch.where(updates, average, state.moving_average))
    state.violation.copy_(torch.where(updates, v, state.violation))
    opens = updates & automatic & follows_error
    state.bound_opening.copy_(torch.where(opens, opening, state.bound_opening))
    state.upper_bound.copy_(torch.where(updates, high, state.upper_bound))
    state.last_constraint.copy_(torch.where(finite, c_hat, state.last_constraint))
    state.accumulated.copy_(torch.where(updates, 0.0, accumulated))
    state.accumulated_examples.copy_(torch.where(complete, 0, examples))
    state.micro_batches.copy_(torch.where(complete, 0, micro_batches))
    state.steps.copy_(state.steps + updates)
    state.skipped.copy_(state.skipped + ~finite)
    _advance_schedules(call, update, state, updates)
    return penalty


def _log_excess(average: Tensor, scales: Tensor) -> Tensor:
    """Log of how many times its tolerance an error is, 0 where the constraint is met."""
    return (1.0 + average / scales).clamp_min(1.0).log()


def _advance_schedules(call: LossCall, update: UpdateSettings, state: State, updates: Tensor) -> None:
    """Move kappa by one step of its schedule; average and violation are then those of the new kappa."""
    row = 0
    for term in parse_terms(call.terms):
        rows = slice(row, row + term.rows)
        row += term.rows
        moves = updates & (state.schedule_steps[rows] > 0)
        kappa, average, target = state.kappa[rows].clone(), state.moving_average[rows], state.kappa_target[rows]
        last = _tolerance(term.scale_rule, target)
        seen = torch.maximum(_tolerance_in_use(term.scale_rule, average, kappa), last)
        given = _tolerance(term.scale_rule, state.schedule_start[rows])
        first = torch.where(given.isnan(), seen, given)
        step = state.schedule_step[rows] + 1
        share = step / state.schedule_steps[rows]
        geometric = first * (share * (last / first).log()).exp()
        between = torch.where(state.schedule_is_linear[rows] != 0, first + (last - first) * share, geometric)
        moved = torch.where(share < 1.0, _tolerance(term.scale_rule, between), target)  # it is its own inverse
        squares = term.scale_rule == "kappa^2"
        shift = (
            kappa**2 - moved**2 if squares else _tolerance(term.scale_rule, kappa) - _tolerance(term.scale_rule, moved)
        )
        for name, value in (
            (
                "schedule_start",
                torch.where(given.isnan(), _tolerance(term.scale_rule, first), state.schedule_start[rows]),
            ),
            ("schedule_step", step),
            ("schedule_steps", torch.where(share < 1.0, state.schedule_steps[rows], 0.0)),
            ("kappa", moved),
            ("moving_average", average + shift),
        ):
            of_row = getattr(state, name)[rows]
            of_row.copy_(torch.where(moves, value, of_row))
        violation = _clipped_violation(update, state.moving_average, _scales(call, state))[rows]
        state.violation[rows] = torch.where(moves, violation, state.violation[rows])


def _tolerance(scale_rule: str, kappa: Tensor) -> Tensor:
    """The size of what kappa allows: itself, or what is missing to the similarity of identical images."""
    return 1.0 - kappa if scale_rule == "1-kappa" else kappa


def _tolerance_in_use(scale_rule: str, c: Tensor, kappa: Tensor) -> Tensor:
    """The tolerance that would be met by what was measured, from its C under kappa."""
    if scale_rule == "kappa^2":
        return (c + kappa**2).clamp_min(0.0).sqrt()
    return c + _tolerance(scale_rule, kappa)

// Algorithm 1 of "Taming VAEs" for one constraint: moving average, stopped gradient, multiplier update.
#pragma once

#include <cmath>
#include <cstdint>

#include "math/kinds.h"
#include "math/macros.h"
#include "math/state.h"

namespace geco {

// log(1 + C/s), C/s, or C itself: enumerator and name in Python.
#define GECO_VIOLATIONS(X) X(kLog, "log") X(kRelative, "relative") X(kRaw, "raw")

#define GECO_ENUMERATOR(enumerator, name) enumerator,
enum class Violation : int { GECO_VIOLATIONS(GECO_ENUMERATOR) };
#undef GECO_ENUMERATOR

struct MultiplierUpdate {
  double alpha;
  double lr;
  double proportional;
  double max_violation;
  Violation violation;
  std::int64_t accumulation_steps;
};

// Automatic bounds, as multiples of the natural multiplier.
constexpr double kLowestMultiple = 1e-3, kHighestMultiple = 3.0;
// By how much log(upper bound) opens in a step in which the multiplier would exceed it (experiments/README.md).
constexpr double kOpeningRate = 0.002;
constexpr double kMostOfAnOutlier = 2.0;  // how many times the error beside it counts for the bounds

constexpr double kSmallest = 1e-12;  // scales and shares of the tolerance below it count as it

// The constraint C of a measured value (Table 1 of "Taming VAEs").
GECO_HD double constraint_value(ScaleRule rule, double measured, double kappa) {
  if (rule == ScaleRule::kKappaSquared) return measured - kappa * kappa;
  if (rule == ScaleRule::kKappa) return measured - kappa;
  return rule == ScaleRule::kOneMinusKappa ? kappa - measured : measured;
}

// Of a constraint that subtracts its tolerance itself: what it gives, or (NaN) kappa, and 1 where there is none.
GECO_HD double own_scale(double given, double kappa) { return given == given ? given : kappa > 0.0 ? kappa : 1.0; }

GECO_HD double constraint_scale(ScaleRule rule, const State& state, int l) {
  const double kappa = state.at(Row::kKappa, l);
  const double scale = rule == ScaleRule::kKappaSquared    ? kappa * kappa
                       : rule == ScaleRule::kOneMinusKappa ? 1.0 - kappa
                       : rule == ScaleRule::kKappa         ? kappa
                                                           : own_scale(state.at(Row::kScale, l), kappa);
  return scale > kSmallest ? scale : kSmallest;
}

// lambda* = D / (2 s): for squared errors the Gaussian likelihood with sigma = kappa (others: math/elementwise.h).
// A constraint of a user's own may give lambda* itself; NaN: it does not.
GECO_HD double natural_log_multiplier(ScaleRule rule, const State& state, int l, double elements) {
  const double given = state.at(Row::kNaturalMultiplier, l);
  if (rule == ScaleRule::kOwn && given == given) return std::log(given);
  return std::log(elements / (2.0 * constraint_scale(rule, state, l)));
}

// log lambda before this step. Until the first update resolves an automatic start, which takes the error, it is
// lambda*, or where multipliers follow the error the lowest that is allowed, and no more than the natural multiplier of
// an error of 1: one gradient with the multiplier of a tight tolerance would make the second moments of Adam so large
// that it hardly moves for hundreds of steps.
GECO_HD double log_multiplier(ScaleRule rule, const State& state, int l, double elements) {
  const double stored = state.at(Row::kLogMultiplier, l);
  if (stored == stored) return stored;
  const double natural = natural_log_multiplier(rule, state, l, elements);
  if (state.at(Row::kFollowsError, l) == 0.0) return natural;
  const double lowest = natural + std::log(kLowestMultiple), of_one = std::log(elements / 2.0);
  const double low = state.at(Row::kLogLow, l), high = state.at(Row::kLogHigh, l);  // NaN: none is given
  const double value = lowest < of_one ? lowest : of_one;
  return value < low ? low : value > high ? high : value;
}

// The size of what kappa allows: kappa itself, or what is missing to the similarity of identical images.
GECO_HD double tolerance(ScaleRule rule, double kappa) {
  return rule == ScaleRule::kOneMinusKappa ? 1.0 - kappa : kappa;
}
GECO_HD double kappa_of_tolerance(ScaleRule rule, double tolerance) {
  return rule == ScaleRule::kOneMinusKappa ? 1.0 - tolerance : tolerance;
}

// The tolerance that would be met by what was measured, from its C under kappa.
GECO_HD double tolerance_in_use(ScaleRule rule, double c, double kappa) {
  if (rule == ScaleRule::kKappaSquared) {
    const double measured = c + kappa * kappa;
    return measured > 0.0 ? std::sqrt(measured) : 0.0;
  }
  return c + tolerance(rule, kappa);
}

// log of how many times its tolerance an error is, 0 where the constraint is met: log lambda* minus it is the natural
// multiplier of the error itself, D / (2 (s + C)).
GECO_HD double log_excess(double average, double scale) {
  const double share = 1.0 + average / scale;
  return share > 1.0 ? std::log(share) : 0.0;
}

// The excess that a multiplier follows: that of the average, but at most twice the error of this step and twice the
// average before it. An outlier stays in the average for hundreds of steps, in which its constraint would hardly weigh.
GECO_HD double followed_excess(double average, double of_step, double average_before, double scale) {
  const double most =
      std::log(kMostOfAnOutlier) + log_excess(of_step < average_before ? of_step : average_before, scale);
  const double excess = log_excess(average, scale);
  return excess < most ? excess : most;
}

GECO_HD double clip(double value, double low, double high) { return value < low ? low : value > high ? high : value; }

GECO_HD double clipped_violation(const MultiplierUpdate& update, double average, double scale) {
  double v = average;
  if (update.violation == Violation::kRelative) v = average / scale;
  if (update.violation == Violation::kLog) {
    const double share = 1.0 + average / scale;
    v = std::log(share > kSmallest ? share : kSmallest);
  }
  return clip(v, -update.max_violation, update.max_violation);
}

// What one call means for the step it belongs to, the same for all its constraints.
struct CallProgress {
  bool finite;   // every C_hat and kl
  bool updates;  // the last micro-batch of a step that has at least one finite micro-batch
  bool first;    // no update yet
  std::int64_t micro_batches;
  std::int64_t examples;  // accumulated, this call included
};

GECO_HD CallProgress call_progress(const MultiplierUpdate& update, const State& state, bool finite,
                                   std::int64_t batch) {
  CallProgress progress;
  progress.finite = finite;
  progress.first = state.at(Counter::kSteps) == 0;
  progress.micro_batches = state.at(Counter::kMicroBatches) + 1;
  progress.examples = state.at(Counter::kAccumulatedExamples) + (finite ? batch : 0);
  progress.updates = progress.micro_batches >= update.accumulation_steps && progress.examples > 0;
  return progress;
}

// Moves kappa by one step of its schedule, if it has one. The average and the violation are then those of the new
// kappa, as if it had always been in force: a tolerance that shrinks is not mistaken for an error that grows. (A
// constraint of a user's own is taken to subtract its kappa as it is.)
GECO_HD void advance_schedule(const MultiplierUpdate& update, const State& state, int l, ScaleRule rule) {
  const double steps = state.at(Row::kScheduleSteps, l);
  if (!(steps > 0.0)) return;
  const double kappa = state.at(Row::kKappa, l), average = state.at(Row::kMovingAverage, l);
  const double last = tolerance(rule, state.at(Row::kKappaTarget, l));
  double first = tolerance(rule, state.at(Row::kScheduleStart, l));
  if (first != first) {
    first = tolerance_in_use(rule, average, kappa);
    if (first < last) first = last;
    state.at(Row::kScheduleStart, l) = kappa_of_tolerance(rule, first);
  }
  const double step = state.at(Row::kScheduleStep, l) + 1.0, share = step / steps;
  double next = state.at(Row::kKappaTarget, l);
  if (share < 1.0) {
    const bool is_linear = state.at(Row::kScheduleIsLinear, l) != 0.0;
    next = kappa_of_tolerance(
        rule, is_linear ? first + (last - first) * share : first * std::exp(share * std::log(last / first)));
  }
  state.at(Row::kScheduleStep, l) = step;
  if (share >= 1.0) state.at(Row::kScheduleSteps, l) = 0.0;
  state.at(Row::kKappa, l) = next;
  const double shift =
      rule == ScaleRule::kKappaSquared ? kappa * kappa - next * next : tolerance(rule, kappa) - tolerance(rule, next);
  state.at(Row::kMovingAverage, l) = average + shift;
  state.at(Row::kViolation, l) = clipped_violation(update, average + shift, constraint_scale(rule, state, l));
}

// Moves one constraint's state and returns its part of the penalty, lambda C (lambda before the update).
// A call that is not finite shows its own C_hat and adds nothing to the average.
GECO_HD double advance_constraint(const MultiplierUpdate& update, const CallProgress& progress, const State& state,
                                  int l, ScaleRule rule, double elements, double c_hat, std::int64_t batch) {
  const double log_lambda = log_multiplier(rule, state, l, elements);
  const bool alone = progress.examples == batch;  // the average of one micro-batch is C_hat itself, to the bit
  double accumulated = state.at(Row::kAccumulated, l);
  double c = c_hat;
  if (progress.finite) {
    accumulated = accumulated + c_hat * static_cast<double>(batch);
    state.at(Row::kLastConstraint, l) = c_hat;
  }
  if (progress.updates) {
    const double step_average = alone && progress.finite ? c_hat : accumulated / static_cast<double>(progress.examples);
    const double previous = state.at(Row::kMovingAverage, l);
    const double average =
        progress.first ? step_average : update.alpha * previous + (1.0 - update.alpha) * step_average;
    const double scale = constraint_scale(rule, state, l);
    const double v = clipped_violation(update, average, scale);
    const double v_previous = progress.first ? v : state.at(Row::kViolation, l);
    const bool follows_error = state.at(Row::kFollowsError, l) != 0.0;
    const double excess =
        follows_error ? followed_excess(average, step_average, progress.first ? step_average : previous, scale) : 0.0;
    const double natural = natural_log_multiplier(rule, state, l, elements) - excess;
    const double stored = state.at(Row::kLogMultiplier, l);
    const double moved = (stored == stored ? stored : natural) + update.lr * v + update.proportional * (v - v_previous);
    double low = state.at(Row::kLogLow, l), high = state.at(Row::kLogHigh, l);
    if (low != low) low = natural + std::log(kLowestMultiple);
    if (high != high) {
      const double widest = std::log(kHighestMultiple);
      double opening = follows_error ? state.at(Row::kBoundOpening, l) : widest;
      if (moved > natural + opening) opening = opening + kOpeningRate;
      if (opening > widest) opening = widest;
      if (follows_error) state.at(Row::kBoundOpening, l) = opening;
      high = natural + opening;
    }
    state.at(Row::kLogMultiplier, l) = clip(moved, low, high);
    state.at(Row::kMovingAverage, l) = average;
    state.at(Row::kViolation, l) = v;
    state.at(Row::kUpperBound, l) = high;
    accumulated = 0.0;
    if (progress.finite) c = average;
    advance_schedule(update, state, l, rule);
  } else if (progress.finite && !progress.first) {
    c = state.at(Row::kMovingAverage, l);
  }
  state.at(Row::kAccumulated, l) = accumulated;
  return std::exp(log_lambda) * c;
}

GECO_HD void advance_counters(const MultiplierUpdate& update, const CallProgress& progress, const State& state) {
  const bool complete = progress.micro_batches >= update.accumulation_steps;
  state.at(Counter::kMicroBatches) = complete ? 0 : progress.micro_batches;
  state.at(Counter::kAccumulatedExamples) = complete ? 0 : progress.examples;
  state.at(Counter::kSteps) += progress.updates ? 1 : 0;
  state.at(Counter::kSkipped) += progress.finite ? 0 : 1;
}

}  // namespace geco

// The state of a criterion: one block of 8-byte words that lives where the tensors live.
// Rows of L doubles come first, one column a constraint; the counters follow as 64-bit integers.
// geco_ext/state.py is the Python side of this layout and compares it with geco_ext._C.state_rows and counters.
#pragma once

#include <cstdint>

#include "math/macros.h"

namespace geco {

//   enumerator, name in Python
#define GECO_STATE_ROWS(X)                                                                                          \
  X(kLogMultiplier, "log_multiplier")   /* log lambda; NaN until an automatic start is resolved                  */ \
  X(kMovingAverage, "moving_average")   /* C_ma                                                                  */ \
  X(kViolation, "violation")            /* v of the last update                                                  */ \
  X(kKappa, "kappa")                    /* the tolerance                                                         */ \
  X(kAccumulated, "accumulated")        /* sum of C_hat * examples over the micro-batches of this step           */ \
  X(kLastConstraint, "last_constraint") /* C_hat of the last finite call                                         */ \
  X(kUpperBound, "upper_bound")         /* log bound in force at the last update                                 */ \
  X(kLogLow, "log_low")                 /* log bounds asked for; NaN: automatic                                  */ \
  X(kLogHigh, "log_high")                                                                                           \
  X(kScale, "scale") /* s and lambda* of constraints that bring their own; NaN: by kappa      */                    \
  X(kNaturalMultiplier, "natural_multiplier")                                                                       \
  X(kFollowsError, "follows_error")   /* whether automatic start and bounds are those of the error, not of kappa */ \
  X(kBoundOpening, "bound_opening")   /* log of automatic upper bound / natural multiplier of the error          */ \
  X(kKappaTarget, "kappa_target")     /* the kappa that a schedule ends at; kappa itself without one             */ \
  X(kScheduleStart, "schedule_start") /* the kappa that it starts at; NaN: that of the first step, to be seen    */ \
  X(kScheduleSteps, "schedule_steps") /* its length; 0: there is none, or it has ended                           */ \
  X(kScheduleStep, "schedule_step")   /* how many have been taken                                                */ \
  X(kScheduleIsLinear, "schedule_is_linear") /* else geometric                                                   */

#define GECO_STATE_COUNTERS(X)                    \
  X(kAccumulatedExamples, "accumulated_examples") \
  X(kMicroBatches, "micro_batches")               \
  X(kSteps, "steps")                              \
  X(kSkipped, "skipped")

#define GECO_ENUMERATOR(enumerator, name) enumerator,
enum class Row : int { GECO_STATE_ROWS(GECO_ENUMERATOR) kCount };
enum class Counter : int { GECO_STATE_COUNTERS(GECO_ENUMERATOR) kCount };
#undef GECO_ENUMERATOR

struct State {
  double* words;
  int constraints;

  GECO_HD double& at(Row row, int constraint) const { return words[static_cast<int>(row) * constraints + constraint]; }
  GECO_HD std::int64_t& at(Counter counter) const {
    auto* counters = reinterpret_cast<std::int64_t*>(words + static_cast<int>(Row::kCount) * constraints);
    return counters[static_cast<int>(counter)];
  }
};

}  // namespace geco

// The state of a criterion: one block of 8-byte words that lives where the tensors live.
// Rows of L doubles come first, one column a constraint; the counters follow as 64-bit integers.
// geco_ext/state.py is the Python side of this layout.
#pragma once

#include <cstdint>

#include "math/macros.h"

namespace geco {

enum class Row : int {
  kLogMultiplier,   // log lambda; NaN until an automatic start is resolved
  kMovingAverage,   // C_ma
  kViolation,       // v of the last update
  kKappa,           // the tolerance
  kAccumulated,     // sum of C_hat * examples over the micro-batches of this step
  kLastConstraint,  // C_hat of the last finite call
  kUpperBound,      // log bound in force at the last update
  kLogLow,          // log bounds asked for; NaN: automatic
  kLogHigh,
  kScale,  // s and lambda* of constraints that bring their own
  kNaturalMultiplier,
  kCount,
};

enum class Counter : int { kAccumulatedExamples, kMicroBatches, kSteps, kSkipped, kCount };

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

// A measure that is known at run time.
#pragma once

#include "math/kinds.h"

namespace geco {

// What constraints sum up over an input. Those that share it share the sum, and their coefficients add up.
struct Measure {
  ConstraintKind kind;
  double eps;

  GECO_HD bool operator==(const Measure& other) const { return kind == other.kind && eps == other.eps; }
};

#define GECO_ONE(enumerator, Type) +1
constexpr int kMeasureKinds = GECO_MEASURES(GECO_ONE);
#undef GECO_ONE

// Its place in GECO_MEASURES.
GECO_HD int measure_number(ConstraintKind kind) {
  int number = 0;
#define GECO_CASE(enumerator, Type)                      \
  if (kind == ConstraintKind::enumerator) return number; \
  ++number;
  GECO_MEASURES(GECO_CASE)
#undef GECO_CASE
  return number;
}

// Calls `function` with the formula of a kind.
template <class Function>
GECO_HD auto with_measure(ConstraintKind kind, const Function& function) {
#define GECO_CASE(enumerator, Type) \
  if (kind == ConstraintKind::enumerator) return function(Type());
  GECO_MEASURES(GECO_CASE)
#undef GECO_CASE
  return function(SquaredDifference());
}

// What the direction of a measure is multiplied by in d (multiplier * weight * mean over the batch) / d prediction.
GECO_HD double measure_coefficient(ConstraintKind kind, double multiplier, double weight, double batch) {
  return with_measure(kind, [](auto measure) { return decltype(measure)::kFactor; }) * multiplier * weight / batch;
}

}  // namespace geco

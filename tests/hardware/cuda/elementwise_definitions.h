// What constraints that compare number by number measure, by definition, in double, for the runs of the kernels.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "contract.h"
#include "math/kinds.h"

namespace definitions {

using geco::ConstraintKind;

#define GECO_LISTED(enumerator, ...) ConstraintKind::enumerator,
constexpr ConstraintKind kErrors[] = {GECO_ELEMENTWISE_KINDS(GECO_LISTED)};
#undef GECO_LISTED
constexpr std::size_t kErrorCount = sizeof(kErrors) / sizeof(kErrors[0]);
static_assert(kErrors[0] == ConstraintKind::kSquaredError, "runs take the others from the second on");

// A kind that is missing below does not compile.
#pragma GCC diagnostic push
#pragma GCC diagnostic error "-Wswitch"
#define GECO_CASE(enumerator, ...) case ConstraintKind::enumerator:

[[noreturn]] inline void not_an_error(ConstraintKind kind) {
  std::printf("constraint kind %d does not compare number by number\n", static_cast<int>(kind));
  std::exit(1);
}

// The parameter that the runs give a kind; both sides of every branch of its formula have to be met with it.
inline double parameter_of(ConstraintKind kind) {
  switch (kind) {
    case ConstraintKind::kAbsoluteError: return 0.01;
    case ConstraintKind::kSquaredError:
    case ConstraintKind::kSimilarity:
    case ConstraintKind::kScalar: GECO_WINDOWED_KINDS(GECO_CASE) return 0;
  }
  not_an_error(kind);
}

struct Measured {
  double value, derivative;
};

// Of a difference.
inline Measured measured(ConstraintKind kind, double difference, double eps) {
  switch (kind) {
    case ConstraintKind::kSquaredError: return {difference * difference, 2.0 * difference};
    case ConstraintKind::kAbsoluteError: {
      const double root = std::sqrt(difference * difference + eps * eps);
      return {root - eps, difference / root};
    }
    case ConstraintKind::kSimilarity:
    case ConstraintKind::kScalar: GECO_WINDOWED_KINDS(GECO_CASE) break;
  }
  not_an_error(kind);
}

#undef GECO_CASE
#pragma GCC diagnostic pop

}  // namespace definitions

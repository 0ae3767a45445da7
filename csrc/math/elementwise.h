// The constraints that compare number by number: the kinds, and what each measures of one difference d = x_hat - x.
#pragma once

#include "math/macros.h"

namespace geco {

//   enumerator, name in Python, scale rule, is it windowed, element rule (math/kinds.h)
// The natural multiplier lambda* = D / (2 s) is that of a likelihood: for squared errors of n numbers the Gaussian with
// sigma^2 = s, D = n; for errors that are not squared the Laplace with b = s, lambda* = n / s, so that D = 2 n.
#define GECO_ELEMENTWISE_KINDS(X)                                    \
  X(kSquaredError, "squared_error", kKappaSquared, false, kOfInputs) \
  X(kAbsoluteError, "absolute_error", kKappa, false, kTwiceOfInputs)

//   enumerator, its measure
#define GECO_MEASURES(X) X(kSquaredError, SquaredDifference) X(kAbsoluteError, AbsoluteDifference)

// What is measured of a difference d, `eps` being the one parameter that a kind may have. V may be a vector of numbers;
// Math knows square_root(v), quotient(v, w), min(v, limit), max(v, limit) and unless_zero(condition, v) (zero where the
// condition is), all of which leave NaN what it is. A measure
// - is the same for d and -d: the gradient by x is minus that by x_hat;
// - is zero with a zero derivative at d = 0, which stands for elements of weight zero and beyond an edge;
// - is NaN where d is.
// The derivative by d comes without its constant factor: it is kFactor * direction.
template <class V>
struct Measured {
  V value, direction;
};

// RE, FRE: d^2.
struct SquaredDifference {
  static constexpr double kFactor = 2.0;

  template <class Math, class V, class Real>
  static GECO_HD Measured<V> of(V d, Real /*eps*/) {
    return {d * d, d};
  }
};

// sqrt(d^2 + eps^2) - eps, without the difference of two numbers that are nearly equal.
struct AbsoluteDifference {
  static constexpr double kFactor = 1.0;

  template <class Math, class V, class Real>
  static GECO_HD Measured<V> of(V d, Real eps) {
    const V root = Math::square_root(d * d + eps * eps);
    return {Math::quotient(V(d * d), V(root + eps)), Math::quotient(d, root)};
  }
};

}  // namespace geco

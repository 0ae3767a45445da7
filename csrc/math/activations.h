// The logistic function and the hyperbolic tangent, without cancellation and without overflow.
//
// Written for a number type N that may be a vector of numbers. Math knows its elementary functions, all of which leave
// NaN what it is and underflow and overflow as they should:
//
//   Math::Real                 the type of one of the numbers
//   Math::exp(x)
//   Math::exponential(x)       exp(x) and exp(x) - 1, the latter as accurate relative to itself
//   Math::reciprocal(x)        1 / x of numbers between 1 and 2
//   Math::absolute(x)
//   Math::with_sign_of(x, m)   m with the sign of x
#pragma once

#include "math/macros.h"

namespace geco {

template <class N>
struct Exponential {
  N value, minus_one;  // exp(x), exp(x) - 1
};

template <class N>
struct Sigmoid {
  N value, complement;  // sigmoid(x), 1 - sigmoid(x): the product is the derivative, never zero by rounding
};

template <class Math, class N>
GECO_HD Sigmoid<N> sigmoid(N x) {
  using Real = typename Math::Real;
  const N decay = Math::exp(-Math::absolute(x));
  const N larger = Math::reciprocal(decay + Real(1)), smaller = decay * larger;
  return {x < Real(0) ? smaller : larger, x < Real(0) ? larger : smaller};
}

template <class N>
struct Tanh {
  N value, slope;  // tanh(x), 1 - tanh(x)^2
};

template <class Math, class N>
GECO_HD Tanh<N> hyperbolic_tangent(N x) {
  using Real = typename Math::Real;
  const Exponential<N> decay = Math::exponential(Math::absolute(x) * Real(-2));
  const N inverse = Math::reciprocal(decay.minus_one + Real(2));
  // Of small numbers, decay.minus_one has the digits that 1 - decay.value has lost.
  return {Math::with_sign_of(x, -decay.minus_one * inverse), decay.value * inverse * inverse * Real(4)};
}

}  // namespace geco

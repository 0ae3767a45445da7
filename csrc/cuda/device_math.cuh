// Elementary functions of the device for the formulas of models, see math/activations.h.
#pragma once

#include <cmath>

#include "cuda/launch.h"
#include "math/activations.h"

namespace geco::cuda {

template <class Real>
struct ExponentialRange;

// log(2) comes in two parts, so that n times the first is exact. `degree` of the polynomial for |r| <= log(2) / 2.
template <>
struct ExponentialRange<float> {
  static constexpr float kLargest = 89.0f, kLeast = -104.0f, kMostDoublings = 127.0f;
  static constexpr float kLog2 = 0.693359375f, kRestOfLog2 = -2.12194440054690583e-4f;
  static constexpr int kDegree = 8;
};
template <>
struct ExponentialRange<double> {
  static constexpr double kLargest = 710.0, kLeast = -746.0, kMostDoublings = 1023.0;
  static constexpr double kLog2 = 6.93147180369123816490e-01, kRestOfLog2 = 1.90821492927058770002e-10;
  static constexpr int kDegree = 14;
};

template <class N>
struct DeviceMath {
  using Real = N;

  static __device__ __forceinline__ Real exp(Real x) { return ::exp(x); }
  static __device__ __forceinline__ Real reciprocal(Real x) { return Real(1) / x; }
  static __device__ __forceinline__ Real absolute(Real x) { return ::fabs(x); }
  static __device__ __forceinline__ Real with_sign_of(Real x, Real magnitude) { return ::copysign(magnitude, x); }

  // e^x = 2^n (1 + p) with p = r + r^2 q, q > 0: one polynomial for both, and e^x - 1 is never below x by rounding.
  static __device__ __forceinline__ Exponential<Real> exponential(Real x) {
    using Range = ExponentialRange<Real>;
    x = x > Range::kLargest ? Range::kLargest : x < Range::kLeast ? Range::kLeast : x;  // a NaN stays
    Real n = ::floor(x * Real(1.44269504088896340736) + Real(0.5));
    n = n > Range::kMostDoublings ? Range::kMostDoublings : n;
    const Real r = (x - n * Range::kLog2) - n * Range::kRestOfLog2;
    Real q = 1;
#pragma unroll
    for (int k = Range::kDegree; k > 2; --k) q = Real(1) + r * (Real(1) / Real(k)) * q;
    const Real p = r + r * r * (Real(0.5) * q), scale = ::exp2(n);
    return {scale + scale * p, scale * p + (scale - Real(1))};
  }
};

}  // namespace geco::cuda

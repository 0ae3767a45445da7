// What kernels measure of the differences of an operand: squared differences alone, as most calls do, another measure
// alone, or any measures.
#pragma once

#include <cmath>

#include "cuda/block.cuh"

namespace geco::cuda {

// What a thread finds of an operand: a sum for each of its measures.
template <int most>
struct Sums {
  double of[most];

  __device__ __forceinline__ void add(const Sums& other) {
#pragma unroll
    for (int m = 0; m < most; ++m) of[m] += other.of[m];
  }
};

// What math/elementwise.h asks for. Roots and quotients of floats are by instructions that are two units in the last
// place off: rounded ones are subroutines with branches, for each number of a vector.
struct MeasureMath {
  static __device__ __forceinline__ float square_root(float value) {
#if defined(__CUDA_ARCH__)
    float root;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(root) : "f"(value));
    return root;
#else
    return ::sqrtf(value);
#endif
  }
  static __device__ __forceinline__ double square_root(double value) { return ::sqrt(value); }

  static __device__ __forceinline__ float quotient(float a, float b) {
#if defined(__CUDA_ARCH__)
    return __fdividef(a, b);
#else
    return a / b;
#endif
  }
  static __device__ __forceinline__ double quotient(double a, double b) { return a / b; }

  template <class Real>
  static __device__ __forceinline__ Real unless_zero(Real condition, Real value) {
    return condition == 0 ? Real{0} : value;
  }
  template <class Real>
  static __device__ __forceinline__ Real max(Real value, Real least) {
    return value < least ? least : value;
  }
  template <class Real>
  static __device__ __forceinline__ Real min(Real value, Real most) {
    return value > most ? most : value;
  }
};

template <class Real>
__device__ __forceinline__ Measured<Real> measured(const PlannedMeasure& of, Real difference) {
  return with_measure(of.kind(), [&](auto measure) {
    return decltype(measure)::template of<MeasureMath>(difference, static_cast<Real>(of.eps));
  });
}

// `Measures` of the kernels: what becomes of n differences. Adds their values to `values`, one for each measure, and
// writes their gradient. With weights, a zero among them stands before all that a difference may be.

struct SquaredAlone {
  static constexpr bool kWeighted = false, kLinked = false, kDoubles = true;
  static constexpr int kMost = 1;
  static constexpr int kBlocks = kResidentBlocks;  // of a multiprocessor, which bounds registers

  template <class Real, int n>
  static __device__ __forceinline__ void apply(const Plan&, const Operand&, const Shared&, Real coefficient,
                                               const Real (&differences)[n], Real (&gradient)[n],
                                               Real (&values)[kMost]) {
#pragma unroll
    for (int e = 0; e < n; ++e) {
      gradient[e] = differences[e] * coefficient;
      values[0] += differences[e] * differences[e];
    }
  }
};

// Without float64, whose roots and quotients are subroutines that cost all other types their registers.
template <class Measure>
struct OneMeasure : SquaredAlone {
  static constexpr bool kDoubles = false;

  template <class Real, int n>
  static __device__ __forceinline__ void apply(const Plan& plan, const Operand& operand, const Shared&,
                                               Real coefficient, const Real (&differences)[n], Real (&gradient)[n],
                                               Real (&values)[kMost]) {
    const Real eps = static_cast<Real>(plan.measures[operand.first_measure].eps);
#pragma unroll
    for (int e = 0; e < n; ++e) {
      const Measured<Real> found = Measure::template of<MeasureMath>(differences[e], eps);
      gradient[e] = found.direction * coefficient;
      values[0] += found.value;
    }
  }
};

struct AnyMeasures {
  static constexpr bool kWeighted = false, kDoubles = true, kLinked = true;  // linked: see linked_vectors.cuh
  static constexpr int kMost = kMaxMeasures;
  static constexpr int kBlocks = 1;

  template <class Real, int n>
  static __device__ __forceinline__ void apply(const Plan& plan, const Operand& operand, const Shared& shared, Real,
                                               const Real (&differences)[n], Real (&gradient)[n],
                                               Real (&values)[kMost]) {
#pragma unroll
    for (int e = 0; e < n; ++e) gradient[e] = 0;
#pragma unroll
    for (int m = 0; m < kMost; ++m) {
      if (m >= operand.measures) continue;
      const PlannedMeasure& measure = plan.measures[operand.first_measure + m];
      const Real coefficient = static_cast<Real>(shared.coefficients[m]);
#pragma unroll
      for (int e = 0; e < n; ++e) {
        const Measured<Real> found = measured(measure, differences[e]);
        gradient[e] += found.direction * coefficient;
        values[m] += found.value;
      }
    }
  }
};

struct WeightedSquares : SquaredAlone {
  static constexpr bool kWeighted = true;

  template <class Real, int n>
  static __device__ __forceinline__ void apply(const Plan&, const Operand&, const Shared&, Real coefficient,
                                               const Real (&differences)[n], const Real (&weights)[n],
                                               Real (&gradient)[n], Real (&values)[kMost]) {
#pragma unroll
    for (int e = 0; e < n; ++e) {
      const Real difference = weights[e] == 0 ? Real{0} : differences[e];
      const Real weighed = difference * weights[e];
      gradient[e] = weighed * coefficient;
      values[0] += weighed * difference;
    }
  }
};

// A difference of zero measures nothing and has no gradient: with the measures below, too.
template <class Measure>
struct WeightedMeasure : WeightedSquares {
  static constexpr bool kDoubles = false;

  template <class Real, int n>
  static __device__ __forceinline__ void apply(const Plan& plan, const Operand& operand, const Shared&,
                                               Real coefficient, const Real (&differences)[n], const Real (&weights)[n],
                                               Real (&gradient)[n], Real (&values)[kMost]) {
    const Real eps = static_cast<Real>(plan.measures[operand.first_measure].eps);
#pragma unroll
    for (int e = 0; e < n; ++e) {
      const Real counted = weights[e] == 0 ? Real{0} : differences[e];
      const Measured<Real> found = Measure::template of<MeasureMath>(counted, eps);
      gradient[e] = found.direction * weights[e] * coefficient;
      values[0] += found.value * weights[e];
    }
  }
};

struct WeightedMeasures : AnyMeasures {
  static constexpr bool kWeighted = true;

  template <class Real, int n>
  static __device__ __forceinline__ void apply(const Plan& plan, const Operand& operand, const Shared& shared, Real,
                                               const Real (&differences)[n], const Real (&weights)[n],
                                               Real (&gradient)[n], Real (&values)[kMost]) {
    Real counted[n];
#pragma unroll
    for (int e = 0; e < n; ++e) {
      counted[e] = weights[e] == 0 ? Real{0} : differences[e];
      gradient[e] = 0;
    }
#pragma unroll
    for (int m = 0; m < kMost; ++m) {
      if (m >= operand.measures) continue;
      const PlannedMeasure& measure = plan.measures[operand.first_measure + m];
      const Real coefficient = static_cast<Real>(shared.coefficients[m]);
#pragma unroll
      for (int e = 0; e < n; ++e) {
        const Measured<Real> found = measured(measure, counted[e]);
        gradient[e] += found.direction * weights[e] * coefficient;
        values[m] += found.value * weights[e];
      }
    }
  }
};

}  // namespace geco::cuda

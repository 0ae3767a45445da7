// From the moments of patches to values and coefficients.
#pragma once

#include "cuda/measures.cuh"
#include "cuda/window_block.cuh"
#include "cuda/window_sets.cuh"
#include "cuda/window_strip.cuh"

namespace geco::cuda {

struct PatchMath : MeasureMath {
  // Of a normal number.
  static __device__ __forceinline__ float inverse_sqrt(float value) {
#if defined(__CUDA_ARCH__)
    float y;  // two units in the last place off; a Newton step leaves one
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(value));
    return fmaf(0.5f * y, fmaf(-value * y, y, 1.0f), y);
#else
    return 1.0f / std::sqrt(value);
#endif
  }
  static __device__ __forceinline__ double inverse_sqrt(double value) { return 1.0 / sqrt(value); }
};

// Values of the patches of a row, and their coefficients, set or added. `starts`: which columns begin one, all others
// have coefficients of zero; `counted`: whose values add up.
template <bool adds, class Formula, class Real, int columns>
__device__ __forceinline__ Real measure(const Formula& formula, const PatchRule<Real>& rule,
                                        const Windows<Moments<Real>, columns>& row, unsigned starts, unsigned counted,
                                        Windows<PatchCoefficients<Real>, columns>& coefficients) {
  Real sum = 0;
#pragma unroll
  for (int j = 0; j < columns; ++j) {
    PatchCoefficients<Real> c;
    const Real value = formula(row.of[j], row.from, rule, c);
    if ((starts >> j & 1u) == 0) c = {0, 0, 0};
    if constexpr (adds) {
      coefficients.of[j] = coefficients.of[j] + c;
    } else {
      coefficients.of[j] = c;
    }
    if (counted >> j & 1u) sum += value;
  }
  return sum;
}

// What measures other than squared differences make of some columns of a channel: their sums, and their part of the
// gradient. Few calls have any.
template <class Real, int columns>
__device__ __forceinline__ void add_other_measures(const Plan& plan, const Operand& operand,
                                                   const WindowShared<Real>& shared, int channel, unsigned owned,
                                                   const Real (&hats)[columns], const Real (&xs)[columns],
                                                   Real (&gradient)[columns]) {
  const int of_measure = plan.strips.of_measure, which = of_measure > 1 ? channel : 0;
  const int first = operand.measures - shared.others;
#pragma unroll 1
  for (int m = first; m < operand.measures; ++m) {
    const PlannedMeasure& measure = plan.measures[operand.first_measure + m];
    const Real coefficient = static_cast<Real>(shared.squared_error[m * of_measure + which]);
    Real sum = 0;
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      const Measured<Real> found = measured(measure, hats[j] - xs[j]);
      if (owned >> j & 1u) sum += found.value;
      gradient[j] += found.direction * coefficient;
    }
    shared.sums[(plan.window_count + m * of_measure + which) * kWarpSize] += static_cast<double>(sum);
  }
}

}  // namespace geco::cuda

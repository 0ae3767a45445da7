// From the moments of patches to values and coefficients.
#pragma once

#include "cuda/window_block.cuh"
#include "cuda/window_columns.cuh"
#include "cuda/window_strip.cuh"

namespace geco::cuda {

struct DeviceMath {
  static __device__ __forceinline__ float inverse_sqrt(float value) {
#if defined(__CUDA_ARCH__)
    const float y = rsqrtf(value);  // two units in the last place off; a Newton step leaves one
    return fmaf(0.5f * y, fmaf(-value * y, y, 1.0f), y);
#else
    return 1.0f / std::sqrt(value);
#endif
  }
  static __device__ __forceinline__ double inverse_sqrt(double value) { return 1.0 / sqrt(value); }

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

// Which columns begin a patch: a bit for each column of the lane, four for each window.
template <int columns>
__device__ __forceinline__ std::uint64_t starts_of_patches(const Plan& plan, int first, int width) {
  std::uint64_t starts = 0;
  for (int w = 0; w < plan.window_count; ++w) {
    const Window& window = plan.windows[w];
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      const int column = first + j;
      if (column + window.size <= width && column % window.stride == 0) starts |= std::uint64_t{1} << (4 * w + j);
    }
  }
  return starts;
}

// Values and coefficients of the patches of one row, from their moments.
template <class Real, int columns>
__device__ __forceinline__ void measure(const Plan& plan, const Strip<Real>& strip, int window, unsigned starts,
                                        bool counts, const Columns<Moments<Real>, columns>& moments,
                                        const WindowShared<Real>& shared,
                                        Columns<PatchCoefficients<Real>, columns>& coefficients) {
  PatchRule<Real> rule = shared.rules[window];
  rule.reference_gap = strip.reference.hat - strip.reference.x;
  const bool correlation = plan.terms[plan.windows[window].term].kind() == TermKind::kPatchCorrelation;
  Real sum = 0;
#pragma unroll
  for (int j = 0; j < columns; ++j) {
    PatchCoefficients<Real> of_patch{0, 0, 0};
    const Real value = correlation ? patch_correlation<DeviceMath>(moments.of[j], rule, of_patch)
                                   : local_statistics<DeviceMath>(moments.of[j], rule, of_patch);
    if ((starts >> j & 1u) == 0) continue;
    if (strip.owned >> j & 1u) sum += value;
    coefficients.of[j].a += of_patch.a;
    coefficients.of[j].b += of_patch.b;
    coefficients.of[j].d += of_patch.d;
  }
  if (counts) shared.sums[window * kWarpSize] += static_cast<double>(sum);
}

}  // namespace geco::cuda

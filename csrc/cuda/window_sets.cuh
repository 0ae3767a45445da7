// Statistics of windows as a warp holds them: each lane those that begin in its neighbouring columns. Shuffles bring
// those of other lanes.
#pragma once

#include <type_traits>

#include "cuda/memory.h"
#include "cuda/reduce.h"
#include "cuda/window_memory.h"
#include "math/patch.h"

namespace geco::cuda {

template <class N>
struct RealOf;
template <class Real>
struct RealOf<Moments<Real>> {
  using type = Real;
};
template <class Real>
struct RealOf<PatchCoefficients<Real>> {
  using type = Real;
};
template <class Real>
struct RealOf<ReferredMoments<Real>> {
  using type = Real;
};

// Pixels to count means from; 0 where a pixel is infinite or NaN. Windows that contain it become NaN all the same, and
// an example beside it, whose coefficients there are zero, meets no zero times NaN.
template <class Real>
__device__ __forceinline__ Reference<Real> reference_at(Real hat, Real x) {
  const auto finite = [](Real value) { return value - value == Real{0} ? value : Real{0}; };
  return {finite(hat), finite(x)};
}

// Moments or coefficients N, all of a lane counted from the same reference.
template <class N, int columns>
struct Windows {
  N of[columns];
  Reference<typename RealOf<N>::type> from;
};

// Moments down columns, each counted from a pixel of its own column.
template <class Real, int columns>
struct Windows<ReferredMoments<Real>, columns> {
  ReferredMoments<Real> of[columns];
};

// A row of pixels of both images.
template <class Real, int columns>
struct PixelRow {
  Reference<Real> of[columns];
};

// Sums of coefficients are counted from a reference of the largest coefficients among them: those of a patch without
// contrast, which from a reference far away would lose the digits that others do not need.
template <class Real, int columns>
struct Windows<PatchCoefficients<Real>, columns> {
  PatchCoefficients<Real> of[columns];
  Reference<Real> from;
  Real weight;  // how large those coefficients are
};

// The largest |a| + |b| of the last `count` columns.
template <class Real, int columns>
__device__ __forceinline__ Real weight_of_last(const PatchCoefficients<Real> (&coefficients)[columns], int count) {
  Real weight = 0;
#pragma unroll
  for (int j = 0; j < columns; ++j) {
    if (j < columns - count) continue;
    const Real a = coefficients[j].a, b = coefficients[j].b;
    weight = max(weight, (a < 0 ? -a : a) + (b < 0 ? -b : b));
  }
  return weight;
}

// Windows without anything in them.
template <class N, int columns, class Real>
__device__ __forceinline__ Windows<N, columns> nothing(const Reference<Real>& from) {
  Windows<N, columns> result;
#pragma unroll
  for (int j = 0; j < columns; ++j) result.of[j] = N{};
  if constexpr (!std::is_same_v<N, ReferredMoments<Real>>) result.from = from;
  if constexpr (std::is_same_v<N, PatchCoefficients<Real>>) result.weight = 0;
  return result;
}

// A window of two that do not overlap: moments are merged, sums of coefficients added.
template <class Real>
__device__ __forceinline__ Moments<Real> joined(const Moments<Real>& first, const Moments<Real>& second,
                                                const MergeWeights<Real>& by) {
  return merged(first, second, by);
}
// The same, `gap`: the reference of the second minus that of the first, which is that of the result.
template <class Real>
__device__ __forceinline__ Moments<Real> joined(const Moments<Real>& first, const Moments<Real>& second,
                                                const MergeWeights<Real>& by, const Reference<Real>& gap) {
  return merged(first, second, by, gap);
}
template <class N, class Real, int columns>
__device__ __forceinline__ Windows<N, columns> joined(const Windows<N, columns>& first,
                                                      const Windows<N, columns>& second, const MergeWeights<Real>& by) {
  Windows<N, columns> result;
  result.from = first.from;
  const Reference<Real> gap = second.from - first.from;
#pragma unroll
  for (int j = 0; j < columns; ++j) result.of[j] = joined(first.of[j], second.of[j], by, gap);
  return result;
}

template <class Real, int columns>
__device__ __forceinline__ Windows<PatchCoefficients<Real>, columns> joined(
    const Windows<PatchCoefficients<Real>, columns>& first, const Windows<PatchCoefficients<Real>, columns>& second,
    const MergeWeights<Real>&) {
  Windows<PatchCoefficients<Real>, columns> result;
  const bool by_second = second.weight > first.weight;
  result.from = by_second ? second.from : first.from;
  result.weight = by_second ? second.weight : first.weight;
  const Reference<Real> of_first = first.from - result.from, of_second = second.from - result.from;
#pragma unroll
  for (int j = 0; j < columns; ++j) {
    result.of[j] = lowered(first.of[j], of_first) + lowered(second.of[j], of_second);
  }
  return result;
}

// Columns of pixels, or a pixel more at either end of columns.
template <class Real, int columns>
__device__ __forceinline__ Windows<ReferredMoments<Real>, columns> joined(const PixelRow<Real, columns>& first,
                                                                          const PixelRow<Real, columns>& second,
                                                                          const MergeWeights<Real>& by) {
  Windows<ReferredMoments<Real>, columns> result;
#pragma unroll
  for (int j = 0; j < columns; ++j) result.of[j] = merged(first.of[j], second.of[j], by);
  return result;
}
template <class Real, int columns>
__device__ __forceinline__ Windows<ReferredMoments<Real>, columns> joined(
    const Windows<ReferredMoments<Real>, columns>& first, const PixelRow<Real, columns>& second,
    const MergeWeights<Real>& by) {
  Windows<ReferredMoments<Real>, columns> result;
#pragma unroll
  for (int j = 0; j < columns; ++j) result.of[j] = merged(first.of[j], second.of[j], by);
  return result;
}
template <class Real, int columns>
__device__ __forceinline__ Windows<ReferredMoments<Real>, columns> joined(
    const Windows<ReferredMoments<Real>, columns>& first, const Windows<ReferredMoments<Real>, columns>& second,
    const MergeWeights<Real>& by) {
  Windows<ReferredMoments<Real>, columns> result;
#pragma unroll
  for (int j = 0; j < columns; ++j) result.of[j] = merged(first.of[j], second.of[j], by);
  return result;
}

template <class Set>
__device__ __forceinline__ Set from_lane(const Set& set, int source) {
  using Words = Vector<unsigned, static_cast<int>(sizeof(Set) / sizeof(unsigned))>;
  Words words = bit_cast<Words>(set);
#pragma unroll
  for (unsigned& word : words.values) word = __shfl_sync(kWholeWarp, word, source);
  return bit_cast<Set>(words);
}

// What the lane `distance` to the right holds, or to the left; around the ends of the warp.
template <class Set>
__device__ __forceinline__ Set to_the_right(const Set& set, int distance) {
  return from_lane(set, lane() + distance & kWarpSize - 1);
}
template <class Set>
__device__ __forceinline__ Set to_the_left(const Set& set, int distance) {
  return from_lane(set, lane() - distance & kWarpSize - 1);
}

}  // namespace geco::cuda

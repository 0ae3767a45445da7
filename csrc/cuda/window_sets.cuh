// Statistics of windows as a warp holds them: each lane those that begin in its neighbouring columns. Shuffles bring
// those of other lanes.
#pragma once

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

// Moments or coefficients N, all of a lane counted from the same reference.
template <class N, int columns>
struct Windows {
  N of[columns];
  Reference<typename RealOf<N>::type> from;
};

// Windows without anything in them.
template <class N, int columns, class Real>
__device__ __forceinline__ Windows<N, columns> nothing(const Reference<Real>& from) {
  Windows<N, columns> result;
#pragma unroll
  for (int j = 0; j < columns; ++j) result.of[j] = N{};
  result.from = from;
  return result;
}

// A window of two that do not overlap: moments are merged, sums of coefficients added.
template <class Real>
__device__ __forceinline__ Moments<Real> joined(const Moments<Real>& first, const Moments<Real>& second,
                                                const MergeWeights<Real>& by) {
  return merged(first, second, by);
}
template <class Real>
__device__ __forceinline__ PatchCoefficients<Real> joined(const PatchCoefficients<Real>& first,
                                                          const PatchCoefficients<Real>& second,
                                                          const MergeWeights<Real>&) {
  return first + second;
}

// The same, `gap`: the reference of the second minus that of the first, which is that of the result.
template <class Real>
__device__ __forceinline__ Moments<Real> joined(const Moments<Real>& first, const Moments<Real>& second,
                                                const MergeWeights<Real>& by, const Reference<Real>& gap) {
  return merged(first, second, by, gap);
}
template <class Real>
__device__ __forceinline__ PatchCoefficients<Real> joined(const PatchCoefficients<Real>& first,
                                                          const PatchCoefficients<Real>& second,
                                                          const MergeWeights<Real>&, const Reference<Real>& gap) {
  return first + lowered(second, gap);
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

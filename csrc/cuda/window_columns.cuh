// Windows along a row: a lane holds neighbouring columns, a warp a strip of them, and shuffles bring the others.
#pragma once

#include "cuda/memory.h"
#include "cuda/reduce.h"
#include "cuda/window_memory.h"
#include "math/patch.h"

namespace geco::cuda {

template <class N, int columns>
struct Columns {
  N of[columns];
};

template <class Real>
struct RealOf;
template <class Real>
struct RealOf<Moments<Real>> {
  using type = Real;
};
template <class Real>
struct RealOf<PatchCoefficients<Real>> {
  using type = Real;
};

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
  return {first.a + second.a, first.b + second.b, first.d + second.d};
}

template <class N, class Real, int columns>
__device__ __forceinline__ Columns<N, columns> joined(const Columns<N, columns>& first,
                                                      const Columns<N, columns>& second, const MergeWeights<Real>& by) {
  Columns<N, columns> result;
#pragma unroll
  for (int j = 0; j < columns; ++j) result.of[j] = joined(first.of[j], second.of[j], by);
  return result;
}

// How two halves of `numbers` each are merged; how the digit at a level joins the smaller digits, from their table
// for windows of single numbers.
template <class Real>
__device__ __forceinline__ MergeWeights<Real> halves(Real numbers) {
  return {static_cast<Real>(0.5), numbers * static_cast<Real>(0.5)};
}
template <class Real>
__device__ __forceinline__ MergeWeights<Real> scaled(const MergeWeights<Real>& digit, Real unit) {
  return {digit.share, digit.weight * unit};
}

template <class N>
__device__ __forceinline__ N from_lane(const N& value, int source) {
  using Real = typename RealOf<N>::type;
  using Fields = Vector<Real, static_cast<int>(sizeof(N) / sizeof(Real))>;
  Fields fields = bit_cast<Fields>(value);
#pragma unroll
  for (Real& field : fields.values) field = __shfl_sync(kWholeWarp, field, source);
  return bit_cast<N>(fields);
}

// Of each column the one that lies `distance` to the right. Beyond the strip: anything.
template <int distance, class N, int columns>
__device__ __forceinline__ Columns<N, columns> to_the_right(const Columns<N, columns>& all) {
  Columns<N, columns> result;
#pragma unroll
  for (int j = 0; j < columns; ++j) {
    const int lanes = (j + distance) / columns, slot = (j + distance) % columns;
    result.of[j] = lanes == 0 ? all.of[slot] : from_lane(all.of[slot], (lane() + lanes) % kWarpSize);
  }
  return result;
}

// To the left; beyond the strip: zero.
template <int distance, class N, int columns>
__device__ __forceinline__ Columns<N, columns> to_the_left(const Columns<N, columns>& all) {
  constexpr int kRound = (distance + columns - 1) / columns;  // lanes
  Columns<N, columns> result;
#pragma unroll
  for (int j = 0; j < columns; ++j) {
    const int at = j - distance + kRound * columns, lanes = kRound - at / columns, slot = at % columns;
    result.of[j] = all.of[slot];
    if (lanes > 0) {
      const N other = from_lane(all.of[slot], (lane() + kWarpSize - lanes) % kWarpSize);
      result.of[j] = lane() >= lanes ? other : N{};
    }
  }
  return result;
}

template <bool left, int distance, class N, int columns>
__device__ __forceinline__ Columns<N, columns> neighbours(const Columns<N, columns>& all) {
  if constexpr (left) {
    return to_the_left<distance>(all);
  } else {
    return to_the_right<distance>(all);
  }
}

// Windows of `size` columns by doubling, from those of 2^level: the digits of the size, smallest first, are joined as
// they come. Each window stands at its first column, or (left) at its last one.
template <bool left, int level = 0, class N, class Real, int columns>
__device__ __forceinline__ void along_row(Columns<N, columns>& power, Columns<N, columns>& result, int size, Real unit,
                                          const MergeWeights<Real>* digits) {
  constexpr int kLength = 1 << level;
  if (size & kLength) {
    if constexpr (level > 0 && kLength < kWarpSize * columns) {
      if (size & (kLength - 1)) {
        result = joined(power, neighbours<left, kLength>(result), scaled(digits[level], unit));
      } else {
        result = power;
      }
    } else {
      result = power;
    }
  }
  if constexpr (kLength < kWarpSize * columns && level + 1 < kLevels) {
    if (size >= 2 * kLength) {
      power = joined(power, neighbours<left, kLength>(power), halves(unit * static_cast<Real>(kLength)));
      along_row<left, level + 1>(power, result, size, unit, digits);
    }
  }
}

}  // namespace geco::cuda

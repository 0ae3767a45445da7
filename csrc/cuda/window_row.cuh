// Windows along a row, of a size known at compile time. A lane holds `columns` neighbouring columns, and a window is
// made of parts of lanes: the last columns of its first lane, whole lanes, the first columns of its last one.
//
// All windows that begin in a lane contain its last column, the reference of their moments: no size is below `columns`.
#pragma once

#include "cuda/window_sets.cuh"

namespace geco::cuda {

// Moments of the pixels of a lane's columns over the channels: from the lane's own reference and, for windows that end
// in the first columns of this lane, from that of the lane to the left, which they contain.
template <class Real, int columns>
struct RowMoments {
  Windows<Moments<Real>, columns> own, from_left;
};

// Runs of whole lanes, from the lane to the right on and from this one on.
template <class Real>
using LaneRun = Windows<Moments<Real>, 1>;

// A run of `count` lanes from this one on, by doubling.
template <int count, int numbers, class Real>
__device__ __forceinline__ LaneRun<Real> run_of_lanes(const LaneRun<Real>& whole) {
  if constexpr (count == 1) {
    return whole;
  } else {
    constexpr int kHalf = count / 2, kRest = count % 2;
    const LaneRun<Real> half = run_of_lanes<kHalf, numbers>(whole);
    const LaneRun<Real> even =
        joined(half, to_the_right(half, kHalf), merge_weights<Real>(kHalf * numbers, kHalf * numbers));
    if constexpr (kRest == 0) return even;
    return joined(whole, to_the_right(even, 1), merge_weights<Real>(numbers, 2 * kHalf * numbers));
  }
}

// A run of `count` lanes from the lane to the right on.
template <int count, int numbers, class Real>
__device__ __forceinline__ LaneRun<Real> next_lanes(const LaneRun<Real>& whole, const LaneRun<Real>& next) {
  if constexpr (count == 1) {
    return next;
  } else if constexpr (count == 2) {
    return joined(next, to_the_right(next, 1), merge_weights<Real>(numbers, numbers));
  } else {
    static_assert(count == 3);
    const LaneRun<Real> two = joined(whole, next, merge_weights<Real>(numbers, numbers));
    return joined(next, to_the_right(two, 2), merge_weights<Real>(numbers, 2 * numbers));
  }
}

// Moments of windows of `size` columns, each at its first one. A column counts `numbers`.
template <int size, int numbers, class Real, int columns>
__device__ __forceinline__ Windows<Moments<Real>, columns> along_row(const RowMoments<Real, columns>& row) {
  using N = Moments<Real>;
  static_assert(size >= columns);
  if constexpr (columns == 1) {
    return run_of_lanes<size, numbers>(row.own);
  } else {
    // Whole lanes between the ends of a window: of that at the first column of the lane, and of that at its last one.
    constexpr int kLeast = (size - columns) / columns, kMost = (size - 1) / columns;
    static_assert(kLeast == kMost || kMost <= 2);

    N last[columns];  // from this column on
    last[columns - 1] = row.own.of[columns - 1];
#pragma unroll
    for (int j = columns - 2; j >= 0; --j) {
      last[j] = joined(row.own.of[j], last[j + 1], merge_weights<Real>(numbers, (columns - 1 - j) * numbers));
    }
    N first[columns];  // so many columns
    first[1] = row.from_left.of[0];
#pragma unroll
    for (int q = 2; q < columns; ++q) {
      first[q] = joined(first[q - 1], row.from_left.of[q - 1], merge_weights<Real>((q - 1) * numbers, numbers));
    }

    LaneRun<Real> between[2];   // kLeast and kMost lanes
    Reference<Real> at_end[2];  // that of the last of these lanes
    if constexpr (kMost > 0) {
      const LaneRun<Real> whole{{last[0]}, row.own.from};
      const LaneRun<Real> next = to_the_right(whole, 1);
      between[1] = next_lanes<kMost, columns * numbers>(whole, next);
      at_end[1] = kMost == 1 ? next.from : to_the_right(row.own.from, kMost);
      between[0] = kLeast == kMost ? between[1] : next;
      at_end[0] = kLeast == kMost ? at_end[1] : next.from;
    }

    Windows<N, columns> result;
    result.from = row.own.from;
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      const int begun = columns - j, beyond = size - begun, lanes = beyond / columns, rest = beyond % columns;
      result.of[j] = last[j];
      if (beyond == 0) continue;
      const auto by = merge_weights<Real>(begun * numbers, beyond * numbers);
      if (lanes == 0) {
        result.of[j] = joined(last[j], to_the_right(first[rest], 1), by);
        continue;
      }
      const LaneRun<Real>& run = between[lanes == kMost];
      N tail = run.of[0];
      if (rest > 0) {
        const auto of_rest = merge_weights<Real>(lanes * columns * numbers, rest * numbers);
        const N end = to_the_right(first[rest], lanes + 1);
        tail = lanes == 1 ? joined(tail, end, of_rest) : joined(tail, end, of_rest, at_end[lanes == kMost] - run.from);
      }
      result.of[j] = joined(last[j], tail, by, run.from - row.own.from);
    }
    return result;
  }
}

// Sums of coefficients over the windows of `size` columns that contain each column: of those that begin there and up to
// size - 1 columns to the left. None may begin in the last size - 1 columns of the warp, which come around its end.
template <int size, class Real, int columns>
__device__ __forceinline__ Windows<PatchCoefficients<Real>, columns> over_row(
    const Windows<PatchCoefficients<Real>, columns>& row) {
  using N = PatchCoefficients<Real>;
  Windows<N, columns> result;
  if constexpr (columns == 1) {
    // The run of `length` lanes that end here, in powers of two.
    Windows<N, 1> power = row;
    bool begun = false;
#pragma unroll
    for (int length = 1; length <= size; length *= 2) {
      if (size & length) {
        result = begun ? joined(power, to_the_left(result, length), MergeWeights<Real>{}) : power;
        begun = true;
      }
      if (2 * length <= size) power = joined(power, to_the_left(power, length), MergeWeights<Real>{});
    }
    return result;
  } else {
    constexpr int kMost = (size - 1) / columns;
    N first[columns];  // up to this column
    first[0] = row.of[0];
#pragma unroll
    for (int j = 1; j < columns; ++j) first[j] = first[j - 1] + row.of[j];
    N last[columns];  // so many columns
    last[1] = row.of[columns - 1];
#pragma unroll
    for (int q = 2; q < columns; ++q) last[q] = row.of[columns - q] + last[q - 1];

    // Counted from the lane of the largest coefficients, of those that windows of this one's pixels begin in.
    Reference<Real> from[kMost + 2];
    from[0] = result.from = row.from;
    result.weight = row.weight;
    constexpr int kRest = (size - 1) % columns;  // columns of the farthest lane
    const Real weight_of_rest = weight_of_last(row.of, kRest);
#pragma unroll
    for (int d = 1; d <= kMost + 1; ++d) {
      from[d] = to_the_left(row.from, d);
      const Real weight = to_the_left(d <= kMost ? row.weight : weight_of_rest, d);
      const bool larger = weight > result.weight;
      result.from = larger ? from[d] : result.from;
      result.weight = larger ? weight : result.weight;
    }
    N between[kMost + 1];  // so many whole lanes to the left
#pragma unroll
    for (int d = 1; d <= kMost; ++d) {
      const N lane = lowered(to_the_left(first[columns - 1], d), from[d] - result.from);
      between[d] = d == 1 ? lane : between[d - 1] + lane;
    }
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      const int beyond = size - (j + 1), lanes = beyond / columns, rest = beyond % columns;
      result.of[j] = lowered(first[j], from[0] - result.from);
      if (lanes > 0) result.of[j] = result.of[j] + between[lanes];
      if (rest > 0) {
        result.of[j] = result.of[j] + lowered(to_the_left(last[rest], lanes + 1), from[lanes + 1] - result.from);
      }
    }
    return result;
  }
}

}  // namespace geco::cuda

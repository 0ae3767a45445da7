// Windows down columns, of a size known at compile time. Rows come in pairs, and a window is made of pairs and of a
// single row at an end or at both. Runs of 1, 2, 4, ... pairs grow by doubling; rings keep those that will be needed
// again.
#pragma once

#include "cuda/window_sets.cuh"

namespace geco::cuda {

// Rows of windows in shared memory, of the first `lanes` lanes. Each reads what it wrote itself, so nothing waits.
template <class N, int columns>
struct Ring {
  using Real = typename RealOf<N>::type;
  static constexpr int kNumbers = static_cast<int>(sizeof(N) / sizeof(Real));
  static constexpr bool kWeighs = std::is_same_v<N, PatchCoefficients<Real>>;
  static constexpr bool kOneReference = !std::is_same_v<N, ReferredMoments<Real>>;  // of all columns of a lane
  static constexpr int kOfLane = kNumbers * columns + kReferenceNumbers * kOneReference + kWeighs;  // numbers of a row
  using Fields = Vector<Real, columns>;
  using FieldWords = Words<Real, columns>;
  using ReferenceWords = Words<Real, 2>;

  Real* numbers;  // of the warp
  int lanes = kWarpSize;

  __device__ __forceinline__ FieldWords& field(int row, int n) const {
    return reinterpret_cast<FieldWords*>(numbers + (row * kOfLane + n * columns) * lanes)[lane()];
  }
  __device__ __forceinline__ ReferenceWords& reference(int row) const {
    return reinterpret_cast<ReferenceWords*>(numbers + (row * kOfLane + kNumbers * columns) * lanes)[lane()];
  }

  __device__ __forceinline__ Real& weight(int row) const {
    return numbers[(row * kOfLane + kNumbers * columns + kReferenceNumbers) * lanes + lane()];
  }

  __device__ __forceinline__ Windows<N, columns> read(int row) const {
    if (lane() >= lanes) return nothing<N, columns>(Reference<Real>{0, 0});
    Fields fields[kNumbers];
#pragma unroll
    for (int n = 0; n < kNumbers; ++n) {
      const FieldWords words = field(row, n);  // a copy, or else the compiler takes the memory for unaligned
      fields[n] = bit_cast<Fields>(words);
    }
    Windows<N, columns> result;
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      Vector<Real, kNumbers> column;
#pragma unroll
      for (int n = 0; n < kNumbers; ++n) column.values[n] = fields[n].values[j];
      result.of[j] = bit_cast<N>(column);
    }
    if constexpr (kOneReference) {
      const ReferenceWords words = reference(row);
      result.from = bit_cast<Reference<Real>>(words);
    }
    if constexpr (kWeighs) result.weight = weight(row);
    return result;
  }

  __device__ __forceinline__ void write(int row, const Windows<N, columns>& windows) const {
    if (lane() >= lanes) return;
    Fields fields[kNumbers];
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      const auto column = bit_cast<Vector<Real, kNumbers>>(windows.of[j]);
#pragma unroll
      for (int n = 0; n < kNumbers; ++n) fields[n].values[j] = column.values[n];
    }
#pragma unroll
    for (int n = 0; n < kNumbers; ++n) field(row, n) = bit_cast<FieldWords>(fields[n]);
    if constexpr (kOneReference) reference(row) = bit_cast<ReferenceWords>(windows.from);
    if constexpr (kWeighs) weight(row) = windows.weight;
  }

  // As if `rows` rows without anything had come before, all counted from the same reference.
  __device__ __forceinline__ void clear(int rows, const Reference<Real>& from) const {
#pragma unroll 1
    for (int row = 0; row < rows; ++row) write(row, nothing<N, columns>(from));
  }
};

// Windows of `size` rows. A number of them counts `numbers`, and a single row is one of windows too or, where these are
// columns, of pixels.
template <class N, class Single, int size, int numbers, int columns>
class Down {
  using Real = typename RealOf<N>::type;
  using Row = Windows<N, columns>;
  static constexpr bool kKeepsSingles = std::is_same_v<Single, Row>;
  static constexpr int kPairs = size / 2;
  static constexpr bool kOdd = size % 2 != 0;
  static constexpr int kLargest = largest_power_of_two(kPairs), kRest = kPairs - kLargest;
  static_assert(kPairs > 0 && (kOdd ? kRest == largest_power_of_two(kRest) : kRest == 0));

  // Rows of the ring (window_kernels.h).
  static constexpr int kRuns = kKeepsSingles ? single_rows_of_pairs(size) : 0;
  static constexpr int kLargestRuns = kRuns + (kLargest > 1 ? kLargest - 2 : 0);

 public:
  static constexpr int kRows = kLargestRuns + kRest;
  static_assert(kRows == kRuns + runs_of_pairs(size));

  // Where the single row at the top of windows that end with this pair lies, counted in rows.
  static __device__ __forceinline__ int top_of(int pair) { return 2 * (pair - kPairs) + 1; }

  // Takes the two rows of pair number `pair`; returns the windows that end with them.
  __device__ __forceinline__ void push(const Ring<N, columns>& ring, int pair, const Single& upper, const Single& lower,
                                       Row (&windows)[2]) {
    static_assert(kKeepsSingles);
    const int single = pair % kPairs;
    const Row top = ring.read(single);
    ring.write(single, lower);
    push(ring, pair, top, upper, lower, windows);
  }

  // The same with the row at top_of(pair), which the caller has at hand.
  __device__ __forceinline__ void push(const Ring<N, columns>& ring, int pair, const Single& top, const Single& upper,
                                       const Single& lower, Row (&windows)[2]) {
    Row run = weighted(upper, lower, 1, 1);
    Row older = before_;  // the run of as many pairs above it
    before_ = run;
    Row all_but_one = older;  // pairs, up to the one before this
    Row rest = run;
#pragma unroll
    for (int length = 1; length < kLargest; length *= 2) {
      if (length > 1) {
        const int at = kRuns + length - 2 + pair % length;
        older = ring.read(at);
        ring.write(at, run);
        all_but_one = weighted(older, all_but_one, 2 * length, 2 * (length - 1));
      }
      if (length == kRest) rest = run;
      run = weighted(older, run, 2 * length, 2 * length);
    }
    if constexpr (kRest > 0) {
      const int at = kLargestRuns + pair % kRest;
      const Row largest = ring.read(at);
      ring.write(at, run);
      run = weighted(largest, rest, 2 * kLargest, 2 * kRest);
    }
    if constexpr (kOdd) {
      windows[0] = weighted(last_, upper, size - 1, 1);
      last_ = run;
      windows[1] = below(top, run, size - 1);
    } else {
      static_assert(kPairs > 1);
      windows[0] = below(top, weighted(all_but_one, upper, size - 2, 1), size - 1);
      windows[1] = run;
    }
  }

  // Before the first pair: as if rows without anything had come, counted from `from`.
  __device__ __forceinline__ void begin(const Reference<Real>& from) { before_ = last_ = nothing<N, columns>(from); }

 private:
  template <class First, class Second>
  static __device__ __forceinline__ Row weighted(const First& first, const Second& second, int a, int b) {
    return joined(first, second, merge_weights<Real>(a * numbers, b * numbers));
  }

  // A single row above a run of `count` rows.
  static __device__ __forceinline__ Row below(const Single& top, const Row& run, int count) {
    if constexpr (kKeepsSingles) return weighted(top, run, 1, count);
    return weighted(run, top, count, 1);  // a pixel more does not mind on which side
  }

  Row before_;  // the pair before
  Row last_;    // kOdd: the run of all pairs that ended with it
};

}  // namespace geco::cuda

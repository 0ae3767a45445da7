// Windows down a column, row by row: each level of the doubling keeps the rows it will need again.
#pragma once

#include "cuda/window_columns.cuh"

namespace geco::cuda {

// Rows of columns in shared memory. Each lane reads what it wrote itself, so nothing waits. Lanes beyond the image
// have no place in it.
template <class N, int columns>
struct Ring {
  using Real = typename RealOf<N>::type;
  static constexpr int kNumbers = static_cast<int>(sizeof(N) / sizeof(Real));
  using Fields = Vector<Real, columns>;
  using FieldWords = Words<Real, columns>;

  Real* numbers;  // of this lane
  int width;      // columns
  bool inside;    // the image

  __device__ __forceinline__ Columns<N, columns> read(int row) const {
    Columns<N, columns> result;
    Fields fields[kNumbers] = {};
    if (inside) {
#pragma unroll
      for (int n = 0; n < kNumbers; ++n) {
        // A copy, or else the compiler takes the memory for unaligned and reads bytes.
        const FieldWords words = *reinterpret_cast<const FieldWords*>(numbers + (row * kNumbers + n) * width);
        fields[n] = bit_cast<Fields>(words);
      }
    }
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      Vector<Real, kNumbers> column;
#pragma unroll
      for (int n = 0; n < kNumbers; ++n) column.values[n] = fields[n].values[j];
      result.of[j] = bit_cast<N>(column);
    }
    return result;
  }

  __device__ __forceinline__ void write(int row, const Columns<N, columns>& all) const {
    Fields fields[kNumbers];
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      const auto column = bit_cast<Vector<Real, kNumbers>>(all.of[j]);
#pragma unroll
      for (int n = 0; n < kNumbers; ++n) fields[n].values[j] = column.values[n];
    }
    if (!inside) return;
#pragma unroll
    for (int n = 0; n < kNumbers; ++n) {
      *reinterpret_cast<FieldWords*>(numbers + (row * kNumbers + n) * width) = bit_cast<FieldWords>(fields[n]);
    }
  }
};

// The window of the last `size` rows, given the last row. Rows come one by one; windows of the first size - 1 of them
// are made of what the ring held before.
template <class N, class Real, int columns>
__device__ __forceinline__ Columns<N, columns> down_column(Columns<N, columns> power, const Ring<N, columns>& ring,
                                                           int row, int size, Real unit,
                                                           const MergeWeights<Real>* digits) {
  Columns<N, columns> result{};
#pragma unroll 1
  for (int level = 0;; ++level) {
    const int length = 1 << level, first = length - 1, smaller = size & first;
    const bool doubles = size >= 2 * length;
    // The smaller digits cover the last rows, this one those above them.
    if (size & length) {
      if (smaller == 0) {
        result = power;
      } else {
        const int at = doubles ? (row - smaller) & first : row % smaller;
        result = joined(ring.read(first + at), result, scaled(digits[level], unit));
      }
    }
    if (!doubles) {
      if (smaller != 0) ring.write(first + row % smaller, power);
      return result;
    }
    const int at = first + (row & first);
    const Columns<N, columns> above = ring.read(at);
    ring.write(at, power);
    power = joined(above, power, halves(unit * static_cast<Real>(length)));
  }
}

}  // namespace geco::cuda

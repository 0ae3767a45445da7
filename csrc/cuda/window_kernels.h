// Which kernels with windows there are. Those for patches of one size, or of two, have everything that decides their
// inner loop fixed when they are compiled; the ones for any size serve all other calls.
#pragma once

#include <cstdint>

#include "math/macros.h"

namespace geco::cuda {

// Of both images together; `kFloat`: float32 and half types, each image of its own; `kDouble`: at least one is float64.
enum class ImageTypes : std::int8_t { kFloat32, kFloat, kDouble };

struct WindowKernel {
  std::int16_t size, smaller;  // of patches; size 0: any, smaller 0: one size only
  std::int8_t channels;        // that statistics are taken over; 0: any number
  std::int8_t columns;         // neighbouring ones that a lane holds
  bool interleaved;            // channels, of both images and the gradient: each pixel's lie next to each other
  ImageTypes images;

  GECO_HD bool operator==(const WindowKernel& other) const {
    return size == other.size && smaller == other.smaller && channels == other.channels && columns == other.columns &&
           interleaved == other.interleaved && images == other.images;
  }
};

// Four columns to a lane, so that a row of a lane is a vector; one column for small images, which leave a
// multiprocessor so few warps that each has to be short.
GECO_HD constexpr bool is_compiled(const WindowKernel& kernel) {
  const bool one_size = kernel.size == 4 || kernel.size == 8 || kernel.size == 11 || kernel.size == 16;
  if (kernel.size == 0) return kernel.images == ImageTypes::kDouble ? kernel.columns <= 2 : kernel.columns != 2;
  if (kernel.images == ImageTypes::kDouble || (kernel.channels != 1 && kernel.channels != 3)) return false;
  if (kernel.smaller != 0) {
    return kernel.smaller == 4 && kernel.size == 8 && kernel.columns == 1 && kernel.images == ImageTypes::kFloat32 &&
           !kernel.interleaved;
  }
  if (!one_size || kernel.columns != 4) return false;
  return !kernel.interleaved || (kernel.channels == 3 && kernel.images == ImageTypes::kFloat32);
}

GECO_HD constexpr int largest_power_of_two(int n) {
  int power = n > 0 ? 1 : 0;
  while (2 * power <= n && power > 0) power *= 2;
  return power;
}

// Whether a kernel for one size merges moments down columns before it does along rows. With one channel a single row is
// pixels then, which are read from the image again when a window needs them, where windows along it would have to be
// kept. With more channels it would be moments, and a lane holds more numbers of its columns than of its windows.
GECO_HD constexpr bool goes_down_first(int channels) { return channels == 1; }

// Rows that a kernel for one size keeps in shared memory while it goes down an image pair of rows by pair
// (window_column.cuh): single rows, and runs of 2, 4, ... pairs and the largest runs that smaller ones follow.
GECO_HD constexpr int single_rows_of_pairs(int size) { return size / 2; }
GECO_HD constexpr int runs_of_pairs(int size) {
  const int pairs = size / 2, largest = largest_power_of_two(pairs);
  return (largest > 1 ? largest - 2 : 0) + (pairs - largest);
}

// Numbers that a lane keeps of a row of windows: moments or coefficients of each column, their reference and the weight
// of the coefficients. Of a row of columns: moments of each, and its own reference.
constexpr int kMomentNumbers = 5, kCoefficientNumbers = 3, kReferenceNumbers = 2;
GECO_HD constexpr int moment_numbers(int columns) { return kMomentNumbers * columns + kReferenceNumbers; }
GECO_HD constexpr int coefficient_numbers(int columns) { return kCoefficientNumbers * columns + kReferenceNumbers + 1; }
GECO_HD constexpr int column_numbers(int columns) { return (kMomentNumbers + kReferenceNumbers) * columns; }

// Of all rows of moments that a lane keeps, and of moments and coefficients.
GECO_HD constexpr int ring_moments_of_pairs(int size, int channels, int columns) {
  const int singles = single_rows_of_pairs(size), runs = runs_of_pairs(size);
  return goes_down_first(channels) ? runs * column_numbers(columns) : (singles + runs) * moment_numbers(columns);
}
GECO_HD constexpr int ring_numbers_of_pairs(int size, int channels, int columns) {
  return ring_moments_of_pairs(size, channels, columns) +
         (single_rows_of_pairs(size) + runs_of_pairs(size)) * coefficient_numbers(columns);
}

// The same of a kernel for any size, which goes row by row: all rows of a patch but the last.
GECO_HD constexpr int ring_rows_of_any(int size) { return size - 1; }
GECO_HD constexpr int ring_numbers_of_any(int size, int columns) {
  return ring_rows_of_any(size) * (moment_numbers(columns) + coefficient_numbers(columns));
}

// Lanes that rings have room for: those that see images, a multiple of four, so that all rows begin at whole vectors.
GECO_HD constexpr int ring_lanes(int lanes) { return (lanes + 3) / 4 * 4; }

}  // namespace geco::cuda

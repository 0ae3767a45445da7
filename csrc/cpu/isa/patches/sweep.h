// One sweep of a patch geometry over a tile of an example: what the scheduler (cpu/patches.cpp) asks of the inner
// loops (sweep.inl).
#pragma once

#include <cstdint>
#include <vector>

#include "contract.h"
#include "math/macros.h"

namespace geco::cpu {

// Windows grow by doubling: level k holds windows of 2^k neighbours, and a window of any length is merged from parts.
// Visits the parts of `length` neighbours, largest first, as (level, offset), from levels up to `top`.
template <class Visit>
GECO_HD void for_each_part(std::int64_t length, int top, const Visit& visit) {
  std::int64_t offset = 0;
  for (int level = top; offset < length; --level) {
    const std::int64_t size = std::int64_t{1} << level;
    for (; offset + size <= length; offset += size) visit(level, offset);
  }
}

// The levels to build for windows up to that length: none beyond what two parts make.
GECO_HD int window_levels(std::int64_t length) {
  int levels = 0;
  while ((std::int64_t{2} << levels) < length) ++levels;
  return levels;
}

// What all sweeps of one geometry share.
struct WindowGeometry {
  WindowGeometry(std::int64_t patch, std::int64_t stride);
  WindowGeometry(const WindowGeometry&) = delete;

  std::int64_t patch, stride;
  int levels;        // of a patch along one side
  int cover_levels;  // of the patches that cover a pixel along one side

  // Whether a window of 2^level rows that starts there is part of a patch.
  GECO_HD bool needs(int level, std::int64_t row) const {
    return stride == 1 || needed[level * stride + row % stride] != 0;
  }

  const char* needed;  // [level][row % stride]

 private:
  std::vector<char> needed_;
};

// Channels of one example of x_hat, x or the gradient. Strides are in elements.
struct Planes {
  char* data = nullptr;  // null: absent
  DataType type = DataType::kFloat32;
  std::int64_t channel_stride = 0, row_stride = 0, column_stride = 0;
};

struct WindowRule {
  ConstraintKind kind;
  double eps;
  double factor;  // of the derivative, see PatchRule
};

constexpr int kMostRules = 8;            // of a sweep
constexpr std::int64_t kBlockRows = 16;  // of an image whose sums are added up in one number

struct Sweep {
  const WindowGeometry* geometry;
  Planes prediction, target, gradient;
  std::int64_t height, width, channels;  // the statistics are over all these channels jointly
  const WindowRule* rules;
  int rule_count;
  double reference_hat, reference;

  // The tile: the pixels whose gradient is written and the patches, by their first pixel, that are counted. Its rows
  // begin with a block.
  std::int64_t first_row, last_row, first_column, last_column;

  // The images of the sweep over the same tile that follows on this thread; null: another tile follows.
  char *next_prediction, *next_target, *next_gradient;

  bool adds;                                 // to what the gradient holds, or sets it
  const double* squared_error_coefficients;  // of each channel; null: no squared error in this sweep

  // Added to, by block of rows: values of the constraints [rule][block], squared differences [channel][block].
  double* value_sums;
  double* squared_error_sums;
  std::int64_t blocks;

  // Set to 1, by block: patches that begin there vary too little for float32, so far as they are from the reference.
  // Null: nobody asks.
  char* far_blocks;
};

// Bytes of scratch memory that the sweep needs, a multiple of 64; they begin on a multiple of 64.
using SweepScratch = std::int64_t (*)(const Sweep& sweep);
using PatchSweep = void (*)(const Sweep& sweep, char* scratch);

}  // namespace geco::cpu

// Which rows and columns a tile reads, measures and writes.
#pragma once

#include <algorithm>

#include "cpu/isa/patches/numbers.inl"

namespace geco::cpu {
namespace {

struct Tile {
  std::int64_t first_input, inputs;              // columns that are read
  std::int64_t pixels;                           // columns that are written
  std::int64_t first_patch, patches;             // columns that patches begin in
  std::int64_t first_counted;                    // of these, the first that is this tile's to count
  std::int64_t first_patch_row, last_patch_row;  // rows that patches begin in
  std::int64_t first_input_row, last_input_row;  // rows that are visited

  // The input begins `reach` columns before the first pixel, if the image does: at least those of a patch.
  Tile(const Sweep& sweep, std::int64_t reach) {
    const std::int64_t patch = sweep.geometry->patch, stride = sweep.geometry->stride;
    first_input = std::max<std::int64_t>(0, sweep.first_column - reach);
    inputs = std::min(sweep.width, sweep.last_column + patch - 1) - first_input;
    pixels = sweep.last_column - sweep.first_column;
    first_patch = round_up(first_input, stride);
    const std::int64_t last_patch = std::min(sweep.width - patch + 1, sweep.last_column);
    patches = std::max<std::int64_t>(0, (last_patch - first_patch + stride - 1) / stride);
    first_counted = std::max<std::int64_t>(0, (sweep.first_column - first_patch + stride - 1) / stride);
    first_patch_row = round_up(std::max<std::int64_t>(0, sweep.first_row - patch + 1), stride);
    last_patch_row = std::min(sweep.height - patch + 1, sweep.last_row);
    first_input_row = sweep.first_row;
    last_input_row = sweep.last_row;
    if (patches == 0 || last_patch_row <= first_patch_row) {
      last_patch_row = first_patch_row;  // no patch touches the tile
    } else {
      const std::int64_t last = first_patch_row + (last_patch_row - 1 - first_patch_row) / stride * stride;
      first_input_row = std::min(first_input_row, first_patch_row);
      last_input_row = std::max(last_input_row, last + patch);
    }
  }

  // Whether patches that are measured lie on that row.
  bool measures(std::int64_t row, std::int64_t patch) const {
    return first_patch_row < last_patch_row && row >= first_patch_row && row - patch + 1 < last_patch_row;
  }
};

// Which tensors have rows that can be used where they lie.
template <class Real>
struct InPlace {
  bool prediction, target, gradient;

  explicit InPlace(const Sweep& sweep)
      : prediction(is_ready(sweep.prediction)),
        target(is_ready(sweep.target)),
        gradient(sweep.gradient.data == nullptr || is_ready(sweep.gradient)) {}

 private:
  static bool is_ready(const Planes& planes) { return planes.type == kTypeOf<Real> && planes.column_stride == 1; }
};

}  // namespace
}  // namespace geco::cpu

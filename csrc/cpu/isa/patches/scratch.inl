// The memory that a sweep works in.
#pragma once

#include "cpu/isa/patches/tile.inl"

namespace geco::cpu {
namespace {

// Hands out memory, or only counts it.
class Arena {
 public:
  explicit Arena(char* memory) : memory_(memory) {}

  template <class T>
  T* take(std::int64_t count) {
    T* const taken = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    used_ += round_up(count * static_cast<std::int64_t>(sizeof(T)), 64);
    return taken;
  }
  std::int64_t used() const { return used_; }

 private:
  char* memory_;
  std::int64_t used_ = 0;
};

// Copied rows are kept until their gradient is written, unless so many channels take more than this.
constexpr std::int64_t kMostCopiedBytes = std::int64_t{1} << 19;

template <class Real>
struct Scratch {
  std::int64_t pitch;                    // from one map of a row to the next
  Ring<Real> moments[kMostLevels];       // of windows of 2^k rows, one column for each patch
  Ring<Real> coefficients[kMostLevels];  // of 2^k neighbouring patches of a column
  Real* along[kMostLevels];              // moments of 2^k neighbours of one row
  Real* cover[kMostLevels];              // coefficients of 2^k neighbours of one row, zeros on either side
  Real* dense;                    // moments, later coefficients, of a row on their way to or from strided patches
  Real* values;                   // of a row of patches, for each rule
  Ring<Real> prediction, target;  // copied rows, a map for each channel
  bool keeps_rows;                // or they are copied again
  Real* gradient;                 // the same
  const Real** prediction_rows;   // of the row in work, by channel
  const Real** target_rows;
  Real** gradient_rows;
  Doubles* value_sums;   // of the rows of a block, by rule
  Doubles* square_sums;  // by channel

  Scratch(Arena& arena, const Sweep& sweep, const InPlace<Real>& in_place) {
    const WindowGeometry& geometry = *sweep.geometry;
    constexpr std::int64_t kLine = 64 / sizeof(Real);
    // Room for the columns of the input and to read a window and two vectors beyond them. An odd number of cache lines
    // keeps the maps out of each other's sets.
    const std::int64_t columns = sweep.last_column - sweep.first_column;
    pitch = (round_up(columns + 3 * geometry.patch + 3 * kLanesOf<Real>, kLine) / kLine | 1) * kLine;
    const auto ring = [&](std::int64_t capacity, std::int64_t maps) {
      return Ring<Real>(arena.take<Real>(capacity * maps * pitch), capacity, maps * pitch);
    };
    // A level gives back windows of its size that begin up to 2^k rows before the newest: to be doubled, or as a part,
    // behind which less than 2^k rows of smaller parts remain (or one more part of the top level).
    for (int k = 0; k <= geometry.levels; ++k) {
      along[k] = arena.take<Real>(kMomentMaps * pitch);
      cover[k] = arena.take<Real>(kCoefficientMaps * pitch);
      moments[k] = ring((std::int64_t{1} << k) + 1, kMomentMaps);
    }
    for (int k = 0; k <= geometry.cover_levels; ++k) {
      coefficients[k] = ring((std::int64_t{1} << k) + 1, kCoefficientMaps);
    }
    dense = geometry.stride > 1 ? arena.take<Real>(kMomentMaps * pitch) : nullptr;
    values = arena.take<Real>(sweep.rule_count * pitch);
    const std::int64_t row_bytes = 2 * sweep.channels * pitch * static_cast<std::int64_t>(sizeof(Real));
    keeps_rows = (geometry.patch + 1) * row_bytes <= kMostCopiedBytes;
    const std::int64_t kept = keeps_rows ? geometry.patch + 1 : 1;
    if (!in_place.prediction) prediction = ring(kept, sweep.channels);
    if (!in_place.target) target = ring(kept, sweep.channels);
    gradient = in_place.gradient ? nullptr : arena.take<Real>(sweep.channels * pitch);
    prediction_rows = arena.take<const Real*>(sweep.channels);
    target_rows = arena.take<const Real*>(sweep.channels);
    gradient_rows = arena.take<Real*>(sweep.channels);
    value_sums = arena.take<Doubles>(sweep.rule_count);
    square_sums = arena.take<Doubles>(sweep.channels);
  }
};

}  // namespace
}  // namespace geco::cpu

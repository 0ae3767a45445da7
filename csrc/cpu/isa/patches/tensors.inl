// The rows of a tile's tensors: where they lie or copied, and asked for before they are needed.
#pragma once

#include "cpu/isa/patches/ahead.inl"
#include "cpu/isa/patches/along.inl"
#include "cpu/isa/patches/scratch.inl"

namespace geco::cpu {
namespace {

template <class Real>
class TileTensors {
 public:
  TileTensors(const Sweep& sweep, const Tile& tile, const InPlace<Real>& in_place, Scratch<Real>& scratch)
      : sweep_(sweep), tile_(tile), in_place_(in_place), scratch_(scratch) {}

  // What cannot be used where it lies.
  void copy_row(std::int64_t row) {
    const auto copy = [this, row](const Planes& planes, Ring<Real>& ring) {
      read_row(planes, sweep_.channels, row, tile_.first_input, ring.begin(row), scratch_.pitch, tile_.inputs);
    };
    if (!in_place_.prediction) copy(sweep_.prediction, scratch_.prediction);
    if (!in_place_.target) copy(sweep_.target, scratch_.target);
  }

  // What is read and written some rows later: of the next sweep, where this one has no more.
  void ask_for_rows_after(std::int64_t row) const {
    constexpr std::int64_t kAhead = 2;
    const bool is_last = row + kAhead >= tile_.last_input_row;
    const std::int64_t input = row + kAhead - (is_last ? tile_.last_input_row - tile_.first_input_row : 0);
    ask_for<ForReading>(sweep_.prediction, is_last, sweep_.next_prediction, input);
    ask_for<ForReading>(sweep_.target, is_last, sweep_.next_target, input);
    const std::int64_t pixels = row - sweep_.geometry->patch + 1 + kAhead;
    if (pixels < sweep_.first_row || pixels >= sweep_.last_row) return;
    ask_for<ForWriting>(sweep_.gradient, false, nullptr, pixels);
  }

  // Finds the channels of a row of both images, from `column` on.
  void find_rows(std::int64_t row, std::int64_t column) {
    if (!scratch_.keeps_rows) copy_row(row);
    find_rows(sweep_.prediction, in_place_.prediction, scratch_.prediction, row, column, scratch_.prediction_rows);
    find_rows(sweep_.target, in_place_.target, scratch_.target, row, column, scratch_.target_rows);
  }

  // Those that were found.
  template <int kChannels>
  ImageRow<Real, kChannels> row() const {
    return {scratch_.prediction_rows, scratch_.target_rows, sweep_.channels, static_cast<Real>(sweep_.reference_hat),
            static_cast<Real>(sweep_.reference)};
  }

  void find_gradient(std::int64_t row) {
    Real* next =
        in_place_.gradient ? numbers_at<Real>(sweep_.gradient, 0, row, sweep_.first_column) : scratch_.gradient;
    const std::int64_t step = in_place_.gradient ? sweep_.gradient.channel_stride : scratch_.pitch;
    for (std::int64_t c = 0; c < sweep_.channels; ++c, next += step) scratch_.gradient_rows[c] = next;
    if (in_place_.gradient || !sweep_.adds) return;
    read_row(sweep_.gradient, sweep_.channels, row, sweep_.first_column, scratch_.gradient, scratch_.pitch,
             tile_.pixels);
  }

 private:
  template <class Access>
  void ask_for(Planes planes, bool of_next, char* next, std::int64_t row) const {
    if (of_next) planes.data = next;
    ask_for_row<Access>(planes, sweep_.channels, row, tile_.first_input, tile_.inputs);
  }

  void find_rows(const Planes& planes, bool in_place, const Ring<Real>& copies, std::int64_t row, std::int64_t column,
                 const Real** rows) const {
    const Real* next =
        in_place ? numbers_at<Real>(planes, 0, row, column) : copies.at(row) + column - tile_.first_input;
    const std::int64_t step = in_place ? planes.channel_stride : scratch_.pitch;
    for (std::int64_t c = 0; c < sweep_.channels; ++c, next += step) rows[c] = next;
  }

  const Sweep& sweep_;
  const Tile& tile_;
  const InPlace<Real>& in_place_;
  Scratch<Real>& scratch_;
};

}  // namespace
}  // namespace geco::cpu

// The elements of an input as lines in memory order.
#pragma once

#include <cstdint>
#include <vector>

#include "call.h"

namespace geco {

// Strides are in elements.
struct Dimension {
  std::int64_t size, prediction, target, gradient;
};

struct Offsets {
  std::int64_t prediction, target, gradient;
};

// Where constraints are per channel the channel stands apart: its lines are counted for one channel.
struct Lines {
  Dimension channel{1, 0, 0, 0};
  std::vector<Dimension> outer;  // slowest first
  Dimension inner{1, 1, 1, 1};
  std::int64_t lines = 1;
};

// Dimensions in the order of the gradient's memory, neighbouring ones merged where all tensors allow it.
Lines lines_of(const Input& input, bool per_channel);

// Where a line of a channel begins.
Offsets offsets_of(const Lines& lines, std::int64_t channel, std::int64_t line);

}  // namespace geco

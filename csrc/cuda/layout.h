// The elements of an input as lines in memory order, in the fixed size of a kernel parameter.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cuda/plan.h"
#include "cuda/tiles.h"
#include "lines.h"

namespace geco::cuda {

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

inline bool aligned(const Tensor& tensor, std::int64_t bytes) {
  return reinterpret_cast<std::uintptr_t>(tensor.data) % static_cast<std::uintptr_t>(bytes) == 0;
}

inline void lay_out(const Input& input, bool per_channel, Item& item) {
  const Lines lines = lines_of(input, per_channel);
  if (lines.outer.size() >= static_cast<std::size_t>(kMaxDimensions)) {
    throw std::invalid_argument("it takes strided tensors of at most " + std::to_string(kMaxDimensions) +
                                " dimensions, got " + std::to_string(input.prediction.rank));
  }
  item.channel = lines.channel;
  item.inner = lines.inner;
  item.outer_dimensions = static_cast<std::int8_t>(lines.outer.size());
  std::copy(lines.outer.begin(), lines.outer.end(), item.outer);
  item.elements = lines.inner.size * lines.lines;
  item.channels = static_cast<int>(lines.channel.size);
}

}  // namespace geco::cuda

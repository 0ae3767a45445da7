// The elements of an input as lines in memory order.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/plan.h"

namespace geco::cuda {

// Dimensions in the order of the gradient's memory, neighbouring ones merged where all tensors allow it; a channel
// dimension is kept apart where constraints are per channel.
inline void lay_out(const Input& input, bool per_channel, Item& item) {
  std::vector<Dimension> dimensions;
  item.channel = {1, 0, 0, 0};
  const Tensor& order = input.gradient ? input.gradient : input.prediction;
  for (int d = 0; d < input.prediction.rank; ++d) {
    const Dimension dimension{input.prediction.sizes[d], input.prediction.strides[d], input.target.strides[d],
                              order.strides[d]};
    if (per_channel && d == 1) {
      item.channel = dimension;
    } else if (dimension.size != 1) {
      dimensions.push_back(dimension);
    }
  }
  std::stable_sort(dimensions.begin(), dimensions.end(),
                   [](const Dimension& a, const Dimension& b) { return a.gradient > b.gradient; });
  std::vector<Dimension> merged;
  for (const Dimension& d : dimensions) {
    Dimension* last = merged.empty() ? nullptr : &merged.back();
    if (last && last->prediction == d.prediction * d.size && last->target == d.target * d.size &&
        last->gradient == d.gradient * d.size) {
      *last = {last->size * d.size, d.prediction, d.target, d.gradient};
    } else {
      merged.push_back(d);
    }
  }
  item.inner = {1, 1, 1, 1};
  if (!merged.empty()) {
    item.inner = merged.back();
    merged.pop_back();
  }
  if (merged.size() >= static_cast<std::size_t>(kMaxDimensions)) {
    throw std::invalid_argument("strides of more than " + std::to_string(kMaxDimensions) +
                                " dimensions that cannot be merged are not supported");
  }
  item.outer_dimensions = static_cast<std::int8_t>(merged.size());
  std::copy(merged.begin(), merged.end(), item.outer);
  item.elements = item.inner.size;
  for (const Dimension& d : merged) item.elements *= d.size;
  item.channels = static_cast<int>(item.channel.size);
}

}  // namespace geco::cuda

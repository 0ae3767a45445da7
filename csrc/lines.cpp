#include "lines.h"

#include <algorithm>
#include <utility>

namespace geco {

Lines lines_of(const Input& input, bool per_channel) {
  Lines result;
  std::vector<Dimension> dimensions;
  const Tensor& order = input.gradient ? input.gradient : input.prediction;
  for (int d = 0; d < input.prediction.rank; ++d) {
    const Dimension dimension{input.prediction.sizes[d], input.prediction.strides[d], input.target.strides[d],
                              order.strides[d]};
    if (per_channel && d == 1) {
      result.channel = dimension;
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
  if (!merged.empty()) {
    result.inner = merged.back();
    merged.pop_back();
  }
  for (const Dimension& d : merged) result.lines *= d.size;
  result.outer = std::move(merged);
  return result;
}

Offsets offsets_of(const Lines& lines, std::int64_t channel, std::int64_t line) {
  Offsets at{channel * lines.channel.prediction, channel * lines.channel.target, channel * lines.channel.gradient};
  for (auto d = lines.outer.rbegin(); d != lines.outer.rend(); ++d) {
    const std::int64_t index = line % d->size;
    line /= d->size;
    at.prediction += index * d->prediction;
    at.target += index * d->target;
    at.gradient += index * d->gradient;
  }
  return at;
}

}  // namespace geco

#include "cuda/elementwise_plan.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <stdexcept>

#include "cuda/threads.h"
#include "cuda/tiles.h"

namespace geco::cuda {
namespace {

// Where inner loops lie apart, at most one of so many elements may be left over by vectors: it is read in a second
// pass.
constexpr std::int64_t kElementsToAnEdge = 16;

// To base 2, rounded up.
constexpr int logarithm(std::int64_t number) {
  int bits = 0;
  while ((std::int64_t{1} << bits) < number) ++bits;
  return bits;
}

constexpr int kThreadBits = logarithm(kThreads);
constexpr int kSectorBits = 3;  // eight float32 are a sector of memory
static_assert(1 << kThreadBits == kThreads);

bool is_wide(DataType type) { return type == DataType::kFloat64; }

std::int64_t elements_off_grid(const Tensor& tensor, int width) {
  return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(tensor.data)) / size_of(tensor.type) % width;
}

// One inner loop but for its ends, or several that are equally far apart; all operands equally far off the grid.
void plan_vectors(const Input& input, const Weights& weights, Operand& operand) {
  if (is_wide(input.prediction.type) != is_wide(input.target.type)) return;
  if (operand.inner.prediction != 1 || operand.inner.target != 1 || operand.inner.gradient != 1) return;
  const int width = width_of(size_of(input.prediction.type));
  const std::int64_t off_grid = elements_off_grid(input.prediction, width);
  if (off_grid != elements_off_grid(input.target, width)) return;
  if (input.gradient && off_grid != elements_off_grid(input.gradient, width)) return;
  if (input.weights && (weights.inner != 1 || off_grid != elements_off_grid(input.weights, width))) return;
  const auto keeps_off = [width](const Dimension& d) {
    return d.prediction % width == 0 && d.target % width == 0 && d.gradient % width == 0;
  };
  if (!keeps_off(operand.channel) || weights.channel % width != 0) return;
  const auto head = static_cast<std::int8_t>((width - off_grid) % width);
  const std::int64_t in_vectors = (operand.inner.size - head) / width * width, edges = operand.inner.size - in_vectors;
  if (in_vectors <= 0) return;
  if (operand.outer_dimensions > 0) {
    const bool one_distance =
        operand.outer_dimensions == 1 && keeps_off(operand.outer[0]) && weights.outer[0] % width == 0;
    if (!one_distance || edges * kElementsToAnEdge > operand.inner.size) return;
    if (operand.elements > std::numeric_limits<std::int32_t>::max()) return;
  }
  operand.head = head;
  operand.vectorised_elements = operand.elements / operand.inner.size * in_vectors;
}

// A side of the box: boxes next to each other are idle in a quarter of their length at most, but for a side of `least`
// bits.
int side(std::int64_t size, int least, int most) {
  const auto idle = [size](int bits) { return -size & ((std::int64_t{1} << bits) - 1); };
  int bits = std::min(logarithm(size), most);
  while (bits > least && 3 * idle(bits) > size) --bits;
  return bits;
}

// The dimension along which an operand's neighbours in memory lie; `stride` is its stride along one.
int dense_dimension(const Operand& operand, std::int64_t Dimension::* stride) {
  int densest = 0;
  for (int d = 1; d <= operand.outer_dimensions; ++d) {
    const std::int64_t distance = std::abs(dimension_of(operand, d).*stride);
    if (distance != 0 && distance < std::abs(dimension_of(operand, densest).*stride)) densest = d;
  }
  return densest;
}

void plan_box(Operand& operand) {
  int bits[kMaxDimensions] = {}, left = kThreadBits;
  const std::int64_t inner = operand.inner.size;
  int across = dense_dimension(operand, &Dimension::target);
  if (across == 0) across = dense_dimension(operand, &Dimension::prediction);
  if (across > 0) {  // a sector of the innermost dimension, and of this one what is left
    const std::int64_t size = dimension_of(operand, across).size;
    const int of_inner = std::min(logarithm(inner), kSectorBits);
    bits[across] = side(size, kSectorBits, left - of_inner);
    left -= bits[across];
  }
  bits[0] = side(inner, kSectorBits, left);
  left -= bits[0];
  for (int d = 1; d <= operand.outer_dimensions; ++d) {
    if (d == across) continue;
    bits[d] = side(dimension_of(operand, d).size, 0, left);
    left -= bits[d];
  }
  for (int d = 0; d < kMaxDimensions; ++d) operand.box |= static_cast<std::uint16_t>(bits[d] << 4 * d);
}

// Along the dimension that leaves the fewest tiles, the innermost one of those.
void unroll_box(Operand& operand, int bits) {
  const auto tiles = [&](int d) {
    operand.unrolled = static_cast<std::uint8_t>(d) & 15;
    return tiles_of(operand);
  };
  operand.unroll_bits = static_cast<std::uint8_t>(bits) & 15;
  int best = 0;
  for (int d = 1; d <= operand.outer_dimensions; ++d) {
    if (tiles(d) < tiles(best)) best = d;
  }
  if (tiles(best) > std::numeric_limits<std::int32_t>::max()) {
    throw std::invalid_argument("tensors of so many elements need neighbouring elements to lie closer together");
  }
}

}  // namespace

void plan_elements(const Input& input, const Weights& weights, Operand& operand) {
  plan_vectors(input, weights, operand);
  if (operand.vectorised_elements == 0) plan_box(operand);
}

void plan_round(Operand& operand, bool weighted, std::int64_t wanted) {
  if (operand.vectorised_elements > 0) {
    const int most = unrolled_vectors(size_of(operand.type_of_prediction()), operand.outer_dimensions > 0 || weighted);
    operand.vectors = static_cast<std::int8_t>(std::clamp<std::int64_t>(wanted, 1, most));
  } else {
    const std::int64_t p = size_of(operand.type_of_prediction()), t = size_of(operand.type_of_target());
    const std::int64_t elements = std::clamp<std::int64_t>(wanted, 1, elements_of_thread(std::max(p, t)));
    unroll_box(operand, logarithm(elements + 1) - 1);  // rounded down
  }
}

std::int64_t rounds_of(const Operand& operand) {
  if (operand.vectorised_elements == 0) return tiles_of(operand);
  const int width = width_of(size_of(operand.type_of_prediction()));
  return ceil_div(ceil_div(operand.elements, width), static_cast<std::int64_t>(kThreads) * operand.vectors);
}

}  // namespace geco::cuda

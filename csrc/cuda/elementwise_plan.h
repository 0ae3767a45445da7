// How the elements of a squared error are cut up: in vectors, or in tiles of single elements.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cuda/plan.h"
#include "cuda/tiles.h"

namespace geco::cuda {

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

inline bool aligned(const Tensor& tensor, std::int64_t bytes) {
  return reinterpret_cast<std::uintptr_t>(tensor.data) % static_cast<std::uintptr_t>(bytes) == 0;
}

// The loops over the elements of an input, in the fixed size of a kernel parameter.
inline void lay_out(const Input& input, bool per_channel, Operand& operand, Weights& weights) {
  const LoopNest loops = loop_nest(input, per_channel);
  if (loops.outer.size() >= static_cast<std::size_t>(kMaxDimensions)) {
    throw std::invalid_argument("it takes strided tensors of at most " + std::to_string(kMaxDimensions) +
                                " dimensions, got " + std::to_string(input.prediction.rank));
  }
  operand.channel = loops.channel;
  operand.inner = loops.inner;
  operand.outer_dimensions = static_cast<std::int8_t>(loops.outer.size());
  std::copy(loops.outer.begin(), loops.outer.end(), operand.outer);
  weights = {input.weights.data, loops.channel.weights, {}, loops.inner.weights};
  for (std::size_t d = 0; d < loops.outer.size(); ++d) weights.outer[d] = loops.outer[d].weights;
  operand.elements = loops.inner.size * loops.iterations;
  operand.channels = static_cast<int>(loops.channel.size);
}

// Decides between the two. Dimensions, types and addresses are known.
void plan_elements(const Input& input, const Weights& weights, Operand& operand);

// A thread takes `wanted` vectors or elements in one round, or as many as it can.
void plan_round(Operand& operand, bool weighted, std::int64_t wanted);

// Rounds of a block that a channel is.
std::int64_t rounds_of(const Operand& operand);

}  // namespace geco::cuda

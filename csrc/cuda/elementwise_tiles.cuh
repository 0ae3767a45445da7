// Differences of elements that do not lie in vectors: whole operands, see tiles.h, and what vectors leave over.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/block.cuh"
#include "cuda/measures.cuh"
#include "cuda/memory.h"
#include "cuda/tiles.h"

namespace geco::cuda {

// How many tiles of an operand lie along each dimension, and in all.
struct Tiling {
  unsigned along[kMaxDimensions], all;
};

__device__ __forceinline__ Tiling tiling_of(const Operand& operand) {
  Tiling tiling{};
  tiling.all = 1;
#pragma unroll
  for (int d = 0; d < kMaxDimensions; ++d) {
    if (d > operand.outer_dimensions) continue;
    tiling.along[d] = static_cast<unsigned>(tiles_along(operand, d));
    tiling.all *= tiling.along[d];
  }
  return tiling;
}

// A tile by its place along each dimension.
struct Tile {
  unsigned along[kMaxDimensions];
};

__device__ __forceinline__ Tile tile_of(const Operand& operand, const Tiling& tiling, unsigned number) {
  Tile tile{};
#pragma unroll
  for (int d = 0; d < kMaxDimensions; ++d) {
    if (d > operand.outer_dimensions) continue;
    const unsigned next = d < operand.outer_dimensions ? number / tiling.along[d] : 0;
    tile.along[d] = number - next * tiling.along[d];
    number = next;
  }
  return tile;
}

// The tile whose number is larger by that of `step`.
__device__ __forceinline__ void advance(const Operand& operand, const Tiling& tiling, const Tile& step, Tile& tile) {
  unsigned carry = 0;
#pragma unroll
  for (int d = 0; d < kMaxDimensions; ++d) {
    if (d > operand.outer_dimensions) continue;
    tile.along[d] += step.along[d] + carry;
    carry = d < operand.outer_dimensions && tile.along[d] >= tiling.along[d] ? 1 : 0;
    if (carry) tile.along[d] -= tiling.along[d];
  }
}

// The elements of a thread in a tile: where the first one lies, and how many there are.
struct TileElements {
  Offsets first;
  int count;
};

template <class Measures>
__device__ __forceinline__ TileElements elements_of(const Operand& operand, const Weights& weights, const Tile& tile) {
  Offsets first{0, 0, 0, 0};
  std::int64_t left_of_unrolled = 0;
  bool inside = true;
  unsigned lane = threadIdx.x;
#pragma unroll
  for (int d = 0; d < kMaxDimensions; ++d) {
    if (d > operand.outer_dimensions) continue;
    const Dimension& dimension = dimension_of(operand, d);
    const int bits = box_bits(operand, d);
    const unsigned in_box = lane & ((1u << bits) - 1);
    lane >>= bits;
    const std::int64_t index = (static_cast<std::int64_t>(tile.along[d]) << tile_bits(operand, d)) + in_box;
    first.prediction += index * dimension.prediction;
    first.target += index * dimension.target;
    first.gradient += index * dimension.gradient;
    if constexpr (Measures::kWeighted) first.weights += index * stride_of(weights, operand, d);
    const std::int64_t left = dimension.size - index;
    inside = inside && left > 0;
    if (d == operand.unrolled) left_of_unrolled = left;
  }
  if (!inside || lane > 0) return {first, 0};  // a box may be smaller than a block
  const int bits = box_bits(operand, operand.unrolled);
  const std::int64_t boxes = ((left_of_unrolled - 1) >> bits) + 1;
  return {first, static_cast<int>(min(boxes, std::int64_t{1} << operand.unroll_bits))};
}

// The bits of numbers, `apart` bytes from each other, zeros beyond `count`. What they are worth is asked once all loads
// of a round are on their way.
template <class Stored, class Bits, int n>
__device__ __forceinline__ void load_each(const unsigned char* from, std::int64_t apart, int count, Bits (&bits)[n]) {
#pragma unroll
  for (int k = 0; k < n; ++k) {
    bits[k] = 0;
    if (k < count) bits[k] = load<Stored, 1>(reinterpret_cast<const Stored*>(from + k * apart)).values[0];
  }
}

template <class Bits, int n>
__device__ __forceinline__ void load_bits(const unsigned char* from, std::int64_t apart, int count, DataType type,
                                          Bits (&bits)[n]) {
  if constexpr (sizeof(Bits) == 8) {
    if (type == DataType::kFloat64) return load_each<std::uint64_t>(from, apart, count, bits);
  }
  if (type == DataType::kFloat32) return load_each<std::uint32_t>(from, apart, count, bits);
  load_each<std::uint16_t>(from, apart, count, bits);
}

template <class Compute>
__device__ __forceinline__ void store_gradient(unsigned char* to, bool wide, Compute value) {
  if constexpr (sizeof(Compute) == 8) {
    if (wide) return store(reinterpret_cast<double*>(to), Vector<double, 1>{value}, false);
  }
  store(reinterpret_cast<float*>(to), Vector<float, 1>{static_cast<float>(value)}, false);
}

// From the bits of numbers of a type to those of the same numbers as `Compute`.
template <class Compute, class Bits, int n>
__device__ __forceinline__ void widen_bits(DataType type, Bits (&bits)[n]) {
  const auto each = [&](auto value_of) {
#pragma unroll
    for (int k = 0; k < n; ++k) bits[k] = bit_cast<Bits>(static_cast<Compute>(value_of(bits[k])));
  };
  switch (type) {
    case DataType::kFloat32: return each([](Bits b) { return bit_cast<float>(static_cast<std::uint32_t>(b)); });
    case DataType::kFloat16: return each([](Bits b) { return widen(Half{static_cast<std::uint16_t>(b)}); });
    case DataType::kBFloat16: return each([](Bits b) { return widen(BFloat16{static_cast<std::uint16_t>(b)}); });
    default: return;  // float64 already
  }
}

// Any strides and types. `Compute` is double where either side is float64.
template <class Measures, class Compute>
__device__ __forceinline__ Sums<Measures::kMost> measure_tiles(const Plan& plan, const Operand& operand,
                                                               const BlockPart& part, const Shared& shared) {
  using Bits = std::conditional_t<sizeof(Compute) == 8, std::uint64_t, std::uint32_t>;
  constexpr int kUnroll = elements_of_thread(sizeof(Compute));
  const DataType p = operand.type_of_prediction(), t = operand.type_of_target();
  const bool wide_gradient = p == DataType::kFloat64;
  const int p_bytes = size_of(p), t_bytes = size_of(t), g_bytes = wide_gradient ? 8 : 4;
  const auto* predictions =
      static_cast<const unsigned char*>(operand.prediction) + part.channel * operand.channel.prediction * p_bytes;
  const auto* targets =
      static_cast<const unsigned char*>(operand.target) + part.channel * operand.channel.target * t_bytes;
  auto* gradients = static_cast<unsigned char*>(operand.gradient);
  if (gradients) gradients += part.channel * operand.channel.gradient * g_bytes;

  const Dimension& unrolled = dimension_of(operand, operand.unrolled);
  const int box = box_bits(operand, operand.unrolled);
  const Weights& weights = plan.weights[part.operand];
  const auto* of_elements = static_cast<const unsigned char*>(weights.data);
  Offsets apart{(unrolled.prediction << box) * p_bytes, (unrolled.target << box) * t_bytes,
                (unrolled.gradient << box) * g_bytes};
  if constexpr (Measures::kWeighted) {
    of_elements += part.channel * weights.channel * std::int64_t{sizeof(Compute)};
    apart.weights = (stride_of(weights, operand, operand.unrolled) << box) * std::int64_t{sizeof(Compute)};
  }
  const Tiling tiling = tiling_of(operand);
  const unsigned blocks = static_cast<unsigned>(operand.blocks);
  const Tile step = tile_of(operand, tiling, blocks);
  unsigned number = static_cast<unsigned>(part.index);
  Tile tile = tile_of(operand, tiling, number);

  Sums<Measures::kMost> totals{};
  Compute coefficient = 0;
  bool knows_coefficient = false;
  do {
    const TileElements elements = elements_of<Measures>(operand, weights, tile);
    Bits prediction[kUnroll], target[kUnroll], weight[kUnroll];
    load_bits(predictions + elements.first.prediction * p_bytes, apart.prediction, elements.count, p, prediction);
    load_bits(targets + elements.first.target * t_bytes, apart.target, elements.count, t, target);
    if constexpr (Measures::kWeighted) {
      load_each<Bits>(of_elements + elements.first.weights * std::int64_t{sizeof(Compute)}, apart.weights,
                      elements.count, weight);
    }
    if (!knows_coefficient) {
      __syncthreads();
      coefficient = static_cast<Compute>(shared.coefficients[0]);
      knows_coefficient = true;
    }
    widen_bits<Compute>(p, prediction);
    widen_bits<Compute>(t, target);
    const int gradients_to_write = gradients ? elements.count : 0;
    std::int64_t gradient_at = elements.first.gradient * g_bytes;
    Compute values[Measures::kMost] = {};
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      const Compute difference[1] = {bit_cast<Compute>(prediction[k]) - bit_cast<Compute>(target[k])};
      Compute gradient[1];
      if constexpr (Measures::kWeighted) {
        const Compute of_difference[1] = {bit_cast<Compute>(weight[k])};
        Measures::apply(plan, operand, shared, coefficient, difference, of_difference, gradient, values);
      } else {
        Measures::apply(plan, operand, shared, coefficient, difference, gradient, values);
      }
      if (k < gradients_to_write) store_gradient(gradients + gradient_at, wide_gradient, gradient[0]);
      gradient_at += apart.gradient;
    }
#pragma unroll
    for (int m = 0; m < Measures::kMost; ++m) totals.of[m] += static_cast<double>(values[m]);
    advance(operand, tiling, step, tile);
    number += blocks;
  } while (number < tiling.all);
  return totals;
}

// The elements of each inner loop before its first vector and after its last one.
template <class Measures>
__device__ __forceinline__ Sums<Measures::kMost> measure_edges(const Plan& plan, const Operand& operand,
                                                               const BlockPart& part, const Shared& shared) {
  const DataType p = operand.type_of_prediction(), t = operand.type_of_target();
  const Dimension loops = operand.outer_dimensions == 0 ? Dimension{1, 0, 0, 0} : operand.outer[0];
  const std::int64_t in_vectors = elements_in_vectors(operand);
  const unsigned of_loop = static_cast<unsigned>(operand.inner.size - in_vectors);
  const unsigned edges = static_cast<unsigned>(loops.size) * of_loop;
  const unsigned step = static_cast<unsigned>(operand.blocks) * kThreads;
  Sums<Measures::kMost> totals{};
  for (unsigned i = static_cast<unsigned>(part.index) * kThreads + threadIdx.x; i < edges; i += step) {
    const unsigned loop = i / of_loop, edge = i - loop * of_loop;
    const std::int64_t position = edge < static_cast<unsigned>(operand.head) ? edge : edge + in_vectors;
    const auto at = [&](std::int64_t channel_stride, std::int64_t loop_stride) {
      return position + loop * loop_stride + part.channel * channel_stride;
    };
    const double difference[1] = {
        read_element<double>(operand.prediction, p, at(operand.channel.prediction, loops.prediction)) -
        read_element<double>(operand.target, t, at(operand.channel.target, loops.target))};
    double gradient[1];
    if constexpr (Measures::kWeighted) {
      const Weights& weights = plan.weights[part.operand];
      const bool wide = p == DataType::kFloat64 || t == DataType::kFloat64;
      const double weight[1] = {read_element<double>(weights.data, wide ? DataType::kFloat64 : DataType::kFloat32,
                                                     at(weights.channel, weights.outer[0]))};
      Measures::apply(plan, operand, shared, shared.coefficients[0], difference, weight, gradient, totals.of);
    } else {
      Measures::apply(plan, operand, shared, shared.coefficients[0], difference, gradient, totals.of);
    }
    if (!operand.gradient) continue;
    write_gradient(operand.gradient, p, at(operand.channel.gradient, loops.gradient), gradient[0]);
  }
  return totals;
}

}  // namespace geco::cuda

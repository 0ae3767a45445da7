// RE and FRE: sums of squared differences, and their gradient in the same pass.
#pragma once

#include "cuda/block.cuh"
#include "cuda/memory.h"
#include "cuda/squared_error_tiles.cuh"

namespace geco::cuda {

// From the end of the vectors of an inner loop to the first one of the next, where there are several.
__device__ __forceinline__ Offsets gap_of(const Item& item, std::int64_t length) {
  const Dimension& outer = item.outer[0];
  return {outer.prediction - length, outer.target - length, outer.gradient - length};
}

// Unit strides in the inner loop. A block takes every item.blocks-th tile, so that all blocks together sweep the
// tensors front to back. All loads of a tile come before their first use; the first ones before the coefficient is
// waited for.
template <class P, class T, bool several_loops>
__device__ __forceinline__ double squared_error_vectors(const Item& item, const Share& share, const Shared& shared) {
  using Compute = typename ComputeOf<P>::type;  // also the type of the gradient
  constexpr int kWidth = width_of(sizeof(P)), kUnroll = unroll_of(sizeof(P), sizeof(T));
  const P* predictions = static_cast<const P*>(item.prediction) + share.channel * item.channel.prediction + item.head;
  const T* targets = static_cast<const T*>(item.target) + share.channel * item.channel.target + item.head;
  Compute* gradients = static_cast<Compute*>(item.gradient);
  if (gradients) gradients += share.channel * item.channel.gradient + item.head;

  const std::int64_t vectors = item.vectorised_elements / kWidth;
  const std::int64_t tile = static_cast<std::int64_t>(kThreads) * item.vectors;
  const std::int64_t length = elements_in_vectors(item);
  const Offsets gap = several_loops ? gap_of(item, length) : Offsets{0, 0, 0};
  const auto loop_of = [&](std::int64_t v) {
    return several_loops ? static_cast<unsigned>(v) / static_cast<unsigned>(length / kWidth) : 0u;
  };
  Vector<P, kWidth> prediction[kUnroll];
  Vector<T, kWidth> target[kUnroll];
  double total = 0;
  Compute coefficient = 0;
  bool knows_coefficient = false;
  std::int64_t first = share.index * tile;
  do {
    const std::int64_t end = min(first + tile, vectors);
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      const std::int64_t v = first + k * kThreads + threadIdx.x;
      if (v >= end) continue;
      const unsigned loop = loop_of(v);
      prediction[k] = load<P, kWidth>(predictions + v * kWidth + loop * gap.prediction);
      target[k] = load_last<T, kWidth>(targets + v * kWidth + loop * gap.target);
    }
    if (!knows_coefficient) {
      __syncthreads();
      coefficient = static_cast<Compute>(shared.coefficient);
      knows_coefficient = true;
    }
    // Each of these adds the squares of one vector, all together those of at most 32 numbers; beyond that in double.
    Compute squares[kUnroll] = {};
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      const std::int64_t v = first + k * kThreads + threadIdx.x;
      if (v >= end) continue;
      Vector<Compute, kWidth> gradient;
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        const Compute difference = widen(prediction[k].values[e]) - widen(target[k].values[e]);
        gradient.values[e] = difference * coefficient;
        squares[k] += difference * difference;
      }
      if (gradients) store(gradients + v * kWidth + loop_of(v) * gap.gradient, gradient, item.stream);
    }
#pragma unroll
    for (int step = 1; step < kUnroll; step *= 2) {
#pragma unroll
      for (int k = 0; k < kUnroll; k += 2 * step) squares[k] += squares[k + step];
    }
    total += static_cast<double>(squares[0]);
    first += item.blocks * tile;
  } while (first < vectors);
  return total;
}

// One inner loop, or several that are all equally far apart.
template <class P, class T>
__device__ __forceinline__ double squared_error_vectors(const Item& item, const Share& share, const Shared& shared) {
  return item.outer_dimensions == 0 ? squared_error_vectors<P, T, false>(item, share, shared)
                                    : squared_error_vectors<P, T, true>(item, share, shared);
}

template <class P, bool mixed_types>
__device__ __forceinline__ double squared_error_vectors(const Item& item, const Share& share, const Shared& shared) {
  if constexpr (!mixed_types) return squared_error_vectors<P, P>(item, share, shared);
  switch (item.type_of_target()) {
    case DataType::kFloat16: return squared_error_vectors<P, Half>(item, share, shared);
    case DataType::kBFloat16: return squared_error_vectors<P, BFloat16>(item, share, shared);
    default: return squared_error_vectors<P, float>(item, share, shared);
  }
}

template <bool mixed_types>
__device__ __forceinline__ double squared_error_vectors(const Item& item, const Share& share, const Shared& shared) {
  switch (item.type_of_prediction()) {
    case DataType::kFloat64: return squared_error_vectors<double, double>(item, share, shared);
    case DataType::kFloat16: return squared_error_vectors<Half, mixed_types>(item, share, shared);
    case DataType::kBFloat16: return squared_error_vectors<BFloat16, mixed_types>(item, share, shared);
    default: return squared_error_vectors<float, mixed_types>(item, share, shared);
  }
}

// This thread's part of the sum of a share. Without `mixed_types` vectors are of one type.
template <bool mixed_types>
__device__ __forceinline__ double squared_error(const Item& item, const Share& share, const Shared& shared) {
  if (item.vectorised_elements > 0) {
    const double total = squared_error_vectors<mixed_types>(item, share, shared);
    return item.vectorised_elements == item.elements ? total : total + squared_error_edges(item, share, shared);
  }
  if (item.elements == 0) {
    __syncthreads();
    return 0.0;
  }
  const bool wide = item.type_of_prediction() == DataType::kFloat64 || item.type_of_target() == DataType::kFloat64;
  return wide ? squared_error_tiles<double>(item, share, shared) : squared_error_tiles<float>(item, share, shared);
}

}  // namespace geco::cuda

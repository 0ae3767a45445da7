// Constraints that compare number by number: sums of measures of differences, and their gradient in the same pass.
#pragma once

#include "cuda/block.cuh"
#include "cuda/elementwise_tiles.cuh"
#include "cuda/measures.cuh"
#include "cuda/memory.h"

namespace geco::cuda {

// From the end of the vectors of an inner loop to the first one of the next, where there are several.
__device__ __forceinline__ Offsets gap_of(const Operand& operand, std::int64_t length) {
  const Dimension& outer = operand.outer[0];
  return {outer.prediction - length, outer.target - length, outer.gradient - length, 0};
}

// Unit strides in the inner loop. A block takes every operand.blocks-th tile, so that all blocks together sweep the
// tensors front to back. All loads of a tile come before their first use; the first ones before the coefficient is
// waited for.
template <class Measures, class P, class T, bool several_loops>
__device__ __forceinline__ Sums<Measures::kMost> measure_vectors(const Plan& plan, const Operand& operand,
                                                                 const BlockPart& part, const Shared& shared) {
  using Compute = typename ComputeOf<P>::type;  // also the type of the gradient
  constexpr int kWidth = width_of(sizeof(P)),
                kUnroll = unrolled_vectors(sizeof(P), several_loops || Measures::kWeighted);
  const P* predictions =
      static_cast<const P*>(operand.prediction) + part.channel * operand.channel.prediction + operand.head;
  const T* targets = static_cast<const T*>(operand.target) + part.channel * operand.channel.target + operand.head;
  Compute* gradients = static_cast<Compute*>(operand.gradient);
  if (gradients) gradients += part.channel * operand.channel.gradient + operand.head;

  const std::int64_t vectors = operand.vectorised_elements / kWidth;
  const std::int64_t tile = static_cast<std::int64_t>(kThreads) * operand.vectors;
  const std::int64_t length = elements_in_vectors(operand);
  Offsets gap = several_loops ? gap_of(operand, length) : Offsets{0, 0, 0, 0};
  const Compute* weights = nullptr;
  if constexpr (Measures::kWeighted) {
    const Weights& of_operand = plan.weights[part.operand];
    weights = static_cast<const Compute*>(of_operand.data) + part.channel * of_operand.channel + operand.head;
    if (several_loops) gap.weights = of_operand.outer[0] - length;
  }
  const auto loop_of = [&](std::int64_t v) {
    return several_loops ? static_cast<unsigned>(v) / static_cast<unsigned>(length / kWidth) : 0u;
  };
  Vector<P, kWidth> prediction[kUnroll];
  Vector<T, kWidth> target[kUnroll];
  Vector<Compute, kWidth> weight[kUnroll];
  Sums<Measures::kMost> totals{};
  Compute coefficient = 0;
  bool knows_coefficient = false;
  std::int64_t first = part.index * tile;
  do {
    const std::int64_t end = min(first + tile, vectors);
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      const std::int64_t v = first + k * kThreads + threadIdx.x;
      if (v >= end) continue;
      const unsigned loop = loop_of(v);
      prediction[k] = load<P, kWidth>(predictions + v * kWidth + loop * gap.prediction);
      target[k] = load<T, kWidth>(targets + v * kWidth + loop * gap.target);
      if constexpr (Measures::kWeighted) {
        weight[k] = load<Compute, kWidth>(weights + v * kWidth + loop * gap.weights);
      }
    }
    if (!knows_coefficient) {
      __syncthreads();
      coefficient = static_cast<Compute>(shared.coefficients[0]);
      knows_coefficient = true;
    }
    // Each of these adds the values of one vector, all together those of at most 32 numbers; beyond that in double.
    constexpr int kChains = Measures::kMost == 1 ? kUnroll : 1;
    Compute values[kChains][Measures::kMost] = {};
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      const std::int64_t v = first + k * kThreads + threadIdx.x;
      if (v >= end) continue;
      Compute differences[kWidth];
      Vector<Compute, kWidth> gradient;
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        differences[e] = widen(prediction[k].values[e]) - widen(target[k].values[e]);
      }
      if constexpr (Measures::kWeighted) {
        Measures::apply(plan, operand, shared, coefficient, differences, weight[k].values, gradient.values,
                        values[k % kChains]);
      } else {
        Measures::apply(plan, operand, shared, coefficient, differences, gradient.values, values[k % kChains]);
      }
      if (gradients) store(gradients + v * kWidth + loop_of(v) * gap.gradient, gradient, operand.stream);
    }
#pragma unroll
    for (int m = 0; m < Measures::kMost; ++m) {
#pragma unroll
      for (int step = 1; step < kChains; step *= 2) {
#pragma unroll
        for (int k = 0; k < kChains; k += 2 * step) values[k][m] += values[k + step][m];
      }
      totals.of[m] += static_cast<double>(values[0][m]);
    }
    first += operand.blocks * tile;
  } while (first < vectors);
  return totals;
}

// One inner loop, or several that are all equally far apart.
template <class Measures, class P, class T>
__device__ __forceinline__ Sums<Measures::kMost> measure_vectors(const Plan& plan, const Operand& operand,
                                                                 const BlockPart& part, const Shared& shared) {
  // Both are compiled where time counts; one loop is the first of several.
  if constexpr (Measures::kWeighted && Measures::kLinked) {
    return measure_vectors<Measures, P, T, true>(plan, operand, part, shared);
  }
  return operand.outer_dimensions == 0 ? measure_vectors<Measures, P, T, false>(plan, operand, part, shared)
                                       : measure_vectors<Measures, P, T, true>(plan, operand, part, shared);
}

// Defined in linked_vectors.cuh, for the kernels that take any measures.
template <class Measures, class P>
__device__ Sums<Measures::kMost> linked_vectors(const Plan& plan, const Operand& operand, const BlockPart& part,
                                                const Shared& shared);

template <class Measures, class P, bool mixed_types>
__device__ __forceinline__ Sums<Measures::kMost> measure_vectors(const Plan& plan, const Operand& operand,
                                                                 const BlockPart& part, const Shared& shared) {
  if constexpr (!mixed_types) return measure_vectors<Measures, P, P>(plan, operand, part, shared);
  switch (operand.type_of_target()) {
    case DataType::kFloat16: return measure_vectors<Measures, P, Half>(plan, operand, part, shared);
    case DataType::kBFloat16: return measure_vectors<Measures, P, BFloat16>(plan, operand, part, shared);
    default: return measure_vectors<Measures, P, float>(plan, operand, part, shared);
  }
}

template <class Measures, bool mixed_types>
__device__ __forceinline__ Sums<Measures::kMost> measure_vectors(const Plan& plan, const Operand& operand,
                                                                 const BlockPart& part, const Shared& shared) {
  if constexpr (Measures::kLinked) {
    switch (operand.type_of_prediction()) {
      case DataType::kFloat64: return linked_vectors<Measures, double>(plan, operand, part, shared);
      case DataType::kFloat16: return linked_vectors<Measures, Half>(plan, operand, part, shared);
      case DataType::kBFloat16: return linked_vectors<Measures, BFloat16>(plan, operand, part, shared);
      default: return linked_vectors<Measures, float>(plan, operand, part, shared);
    }
  }
  if constexpr (Measures::kDoubles) {
    if (operand.type_of_prediction() == DataType::kFloat64) {
      return measure_vectors<Measures, double, double>(plan, operand, part, shared);
    }
  }
  switch (operand.type_of_prediction()) {
    case DataType::kFloat16: return measure_vectors<Measures, Half, mixed_types>(plan, operand, part, shared);
    case DataType::kBFloat16: return measure_vectors<Measures, BFloat16, mixed_types>(plan, operand, part, shared);
    default: return measure_vectors<Measures, float, mixed_types>(plan, operand, part, shared);
  }
}

// This thread's part of the sums of a part. Without `mixed_types` vectors are of one type.
template <class Measures, bool mixed_types>
__device__ __forceinline__ Sums<Measures::kMost> measure_elements(const Plan& plan, const Operand& operand,
                                                                  const BlockPart& part, const Shared& shared) {
  if (operand.vectorised_elements > 0) {
    Sums<Measures::kMost> totals = measure_vectors<Measures, mixed_types>(plan, operand, part, shared);
    if (operand.vectorised_elements < operand.elements)
      totals.add(measure_edges<Measures>(plan, operand, part, shared));
    return totals;
  }
  if (operand.elements == 0) {
    __syncthreads();
    return {};
  }
  if constexpr (!Measures::kDoubles) return measure_tiles<Measures, float>(plan, operand, part, shared);
  const bool wide =
      operand.type_of_prediction() == DataType::kFloat64 || operand.type_of_target() == DataType::kFloat64;
  return wide ? measure_tiles<Measures, double>(plan, operand, part, shared)
              : measure_tiles<Measures, float>(plan, operand, part, shared);
}

}  // namespace geco::cuda

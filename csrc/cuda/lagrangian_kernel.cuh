// The Lagrangian kernel for calls without windows, and the files that compile it for measures of each kind.
#pragma once

#include "cuda/block.cuh"
#include "cuda/elementwise_vectors.cuh"
#include "cuda/last_block.cuh"
#include "cuda/memory.h"
#include "cuda/reduce.h"

namespace geco::cuda {

// kl and scalar constraints: the mean of one number per example; its gradient is the same for each. Returns this
// thread's part of the sum of a part.
__device__ inline double mean(const Operand& operand, const BlockPart& part, const Shared& shared) {
  __syncthreads();
  double sum = 0;
  const std::int64_t step = static_cast<std::int64_t>(operand.blocks) * kThreads;
  for (std::int64_t i = part.index * kThreads + threadIdx.x; i < operand.elements; i += step) {
    sum += read_element<double>(operand.prediction, operand.type_of_prediction(), i * operand.inner.prediction);
    if (operand.gradient) {
      write_gradient(operand.gradient, operand.type_of_prediction(), i * operand.inner.gradient,
                     shared.coefficients[0]);
    }
  }
  return sum;
}

// The block's part of such an operand, its sums handed in.
template <class Measures, bool mixed_types>
__device__ __forceinline__ void elementwise(const Plan& plan, const BlockPart& part, Shared& shared) {
  Sums<Measures::kMost> sums{};
  int count = 1;
  const Operand& operand = plan.operands[part.operand];
  if (plan.operand_count > 0) {
    if constexpr (Measures::kMost > 1) count = operand.measures;
    if (static_cast<int>(threadIdx.x) < count) {
      const int measure = static_cast<int>(threadIdx.x);
      shared.coefficients[measure] = operand.gradient ? coefficient_of(plan, part, measure) : 0.0;
    }
    switch (operand.operation) {
      case Operation::kElementwise: sums = measure_elements<Measures, mixed_types>(plan, operand, part, shared); break;
      case Operation::kMean: sums.of[0] = mean(operand, part, shared); break;
      case Operation::kWindows: break;  // not here
    }
  }
  if (count == 1) {
    const double sum = block_sum(sums.of[0], shared.of_warps);
    if (threadIdx.x == 0) plan.partials[blockIdx.x] = sum;
    return;
  }
#pragma unroll
  for (int m = 0; m < Measures::kMost; ++m) {
    if (m >= count) continue;
    __syncthreads();  // the sums of warps have been read
    const double sum = block_sum(sums.of[m], shared.of_warps);
    if (threadIdx.x != 0) continue;
    plan.partials[operand.first_partial + (part.channel * count + m) * operand.blocks + part.index] = sum;
  }
}

// The multipliers of a step are known before it starts: every block computes its own coefficient from the state, and
// nobody writes the state before all blocks have handed in their sums.
template <class Measures>
__global__ void __launch_bounds__(kThreads, Measures::kBlocks) lagrangian_kernel(const __grid_constant__ Plan plan) {
  GECO_DYNAMIC_SHARED(Shared, shared);
  elementwise<Measures, true>(plan, part_of(plan, static_cast<int>(blockIdx.x)), shared);
  if (is_last_block(plan.ticket, gridDim.x, shared.is_last)) reduce_and_update(plan, shared);
}

template <class Measures>
void launch(const Plan& plan, const Place& place) {
  GECO_LAUNCH(lagrangian_kernel<Measures>, static_cast<unsigned>(plan.blocks), shared_bytes_of(plan), place.stream,
              plan);
}

// That of squared differences alone, without weights, stands in step.cu; those of another measure alone, which the plan
// names, with and without weights in one_measure.cu.
void launch_one_measure(const Plan& plan, const Place& place);
void launch_any_measures(const Plan& plan, const Place& place);
void launch_weighted_squares(const Plan& plan, const Place& place);
void launch_weighted_measures(const Plan& plan, const Place& place);

}  // namespace geco::cuda

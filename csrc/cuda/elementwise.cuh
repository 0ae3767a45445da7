// The inputs of a call that need no statistics of patches.
#pragma once

#include "cuda/block.cuh"
#include "cuda/elementwise_vectors.cuh"
#include "cuda/memory.h"
#include "cuda/reduce.h"

namespace geco::cuda {

// kl and scalar constraints: the mean of one number per example; its gradient is the same for each. Returns this
// thread's part of the sum of a share.
__device__ inline double mean(const Item& item, const Share& share, const Shared& shared) {
  __syncthreads();
  double sum = 0;
  const std::int64_t step = static_cast<std::int64_t>(item.blocks) * kThreads;
  for (std::int64_t i = share.index * kThreads + threadIdx.x; i < item.elements; i += step) {
    sum += read_element<double>(item.prediction, item.type_of_prediction(), i * item.inner.prediction);
    if (item.gradient) {
      write_gradient(item.gradient, item.type_of_prediction(), i * item.inner.gradient, shared.coefficients[0]);
    }
  }
  return sum;
}

// The block's share of such an item, its sums handed in.
template <class Measures, bool mixed_types>
__device__ __forceinline__ void elementwise(const Plan& plan, const Share& share, Shared& shared) {
  Sums<Measures::kMost> sums{};
  int count = 1;
  const Item& item = plan.items[share.item];
  if (plan.item_count > 0) {
    if constexpr (Measures::kMost > 1) count = item.measures;
    if (static_cast<int>(threadIdx.x) < count) {
      const int measure = static_cast<int>(threadIdx.x);
      shared.coefficients[measure] = item.gradient ? coefficient_of(plan, share, measure) : 0.0;
    }
    switch (item.operation) {
      case Operation::kElementwise: sums = measure_elements<Measures, mixed_types>(plan, item, share, shared); break;
      case Operation::kMean: sums.of[0] = mean(item, share, shared); break;
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
    plan.partials[item.first_partial + (share.channel * count + m) * item.blocks + share.index] = sum;
  }
}

}  // namespace geco::cuda

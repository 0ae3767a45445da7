// The inputs of a call that need no statistics of patches.
#pragma once

#include "cuda/block.cuh"
#include "cuda/memory.h"
#include "cuda/reduce.h"
#include "cuda/squared_error.cuh"

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
      write_gradient(item.gradient, item.type_of_prediction(), i * item.inner.gradient, shared.coefficient);
    }
  }
  return sum;
}

// The block's share of such an item, its sum handed in.
template <bool mixed_types>
__device__ __forceinline__ void elementwise(const Plan& plan, const Share& share, Shared& shared) {
  double sum = 0;
  if (plan.item_count > 0) {
    const Item& item = plan.items[share.item];
    if (threadIdx.x == 0) shared.coefficient = item.gradient ? coefficient_of(plan, share) : 0.0;
    switch (item.operation) {
      case Operation::kSquaredError: sum = squared_error<mixed_types>(item, share, shared); break;
      case Operation::kMean: sum = mean(item, share, shared); break;
      case Operation::kWindows: break;  // not here
    }
  }
  sum = block_sum(sum, shared.of_warps);
  if (threadIdx.x == 0) plan.partials[blockIdx.x] = sum;
}

}  // namespace geco::cuda

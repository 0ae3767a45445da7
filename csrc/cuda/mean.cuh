// kl and scalar constraints: the mean of one number per example; its gradient is the same for each.
#pragma once

#include "cuda/block.cuh"
#include "cuda/memory.h"

namespace geco::cuda {

// This thread's part of the sum of a share.
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

}  // namespace geco::cuda

// The items of a plan that need no statistics of patches.
#pragma once

#include "cuda/block.cuh"
#include "cuda/class_probability.cuh"
#include "cuda/mean.cuh"
#include "cuda/reduce.h"
#include "cuda/squared_error.cuh"

namespace geco::cuda {

// The block's share of such an item, its sum handed in.
template <bool mixed_types>
__device__ __forceinline__ void plain_item(const Plan& plan, const Share& share, Shared& shared) {
  double sum = 0;
  if (plan.item_count > 0) {
    const Item& item = plan.items[share.item];
    if (threadIdx.x == 0) shared.coefficient = item.gradient ? coefficient_of(plan, share) : 0.0;
    switch (item.work) {
      case Work::kSquaredError: sum = squared_error<mixed_types>(item, share, shared); break;
      case Work::kClassProbability: sum = class_probability(plan, item, share, shared); break;
      case Work::kMean: sum = mean(item, share, shared); break;
      case Work::kWindows: break;  // not here
    }
  }
  sum = block_sum(sum, shared.of_warps);
  if (threadIdx.x == 0) plan.partials[blockIdx.x] = sum;
}

}  // namespace geco::cuda

// What kernels with windows do besides, compiled once for all of them.
#pragma once

#include "cuda/block.cuh"

namespace geco::cuda {

// The block's share of an item without windows, its sum handed in.
__device__ void item_beside_windows(const Plan& plan, const Share& share, Shared& shared);

// What the last block does with the partial sums.
__device__ void finish_beside_windows(const Plan& plan, Shared& shared);

}  // namespace geco::cuda

// Device functions compiled once and linked into all kernels with windows (relocatable device code).
#pragma once

#include "cuda/block.cuh"

namespace geco::cuda {

// The block's part of an operand without windows, its sum handed in.
__device__ void linked_elementwise(const Plan& plan, const BlockPart& part, Shared& shared);

// What the last block does with the partial sums.
__device__ void linked_reduce_and_update(const Plan& plan, Shared& shared);

}  // namespace geco::cuda

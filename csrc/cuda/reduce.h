// Sums over the threads of a warp, of a group and of a block, always in the same order; and the last block of several.
#pragma once

#include "cuda/launch.h"

namespace geco::cuda {

constexpr unsigned kWholeWarp = 0xffffffffu;

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }
__device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / kWarpSize; }

// The same result in every lane.
__device__ __forceinline__ double warp_sum(double value) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kWholeWarp, value, distance);
  }
  return value;
}

__device__ __forceinline__ double warp_max(double value) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    const double other = __shfl_xor_sync(kWholeWarp, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

// The sum over `group` neighbouring threads, a power of two, valid in the first of them. `of_warps`: kWarps numbers in
// shared memory, free to use; not needed by groups of a warp or less.
__device__ __forceinline__ double group_sum(double value, int group, double* of_warps) {
  if (group < kWarpSize) {
    for (int distance = group / 2; distance > 0; distance /= 2) {
      value += __shfl_xor_sync(kWholeWarp, value, distance);
    }
    return value;
  }
  value = warp_sum(value);
  if (group == kWarpSize) return value;
  if (lane() == 0) of_warps[warp()] = value;
  __syncthreads();
  if (threadIdx.x % static_cast<unsigned>(group) != 0) return 0.0;
  double total = of_warps[warp()];
  for (int w = 1; w < group / kWarpSize; ++w) total += of_warps[warp() + w];
  return total;
}

// Valid in thread 0.
__device__ __forceinline__ double block_sum(double value, double* of_warps) {
  return group_sum(value, kThreads, of_warps);
}

// Whether this block is the last of `blocks` that count on a ticket, which is zero again then. Its threads see what the
// others wrote to memory before they came here. `is_last` is in shared memory.
__device__ __forceinline__ bool is_last_block(unsigned* ticket, unsigned blocks, unsigned& is_last) {
  if (threadIdx.x == 0) {
    __threadfence();
    is_last = atomicInc(ticket, blocks - 1) == blocks - 1;
    if (is_last) __threadfence();
  }
  __syncthreads();
  return is_last;
}

}  // namespace geco::cuda

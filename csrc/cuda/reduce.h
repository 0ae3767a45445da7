// Sums over the threads of a warp and of a block, always in the same order.
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

// The result is valid in thread 0. `of_warps`: kWarps numbers in shared memory, free to use.
__device__ __forceinline__ double block_sum(double value, double* of_warps) {
  value = warp_sum(value);
  if (lane() == 0) of_warps[warp()] = value;
  __syncthreads();
  if (threadIdx.x != 0) return 0.0;
  double total = of_warps[0];
  for (int w = 1; w < kWarps; ++w) total += of_warps[w];
  return total;
}

}  // namespace geco::cuda

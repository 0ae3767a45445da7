#include "cuda/elementwise.cuh"
#include "cuda/last_block.cuh"
#include "cuda/linked.cuh"

namespace geco::cuda {

__device__ void linked_elementwise(const Plan& plan, const Share& share, Shared& shared) {
  elementwise<SquaredAlone, false>(plan, share, shared);
}

__device__ void linked_reduce_and_update(const Plan& plan, Shared& shared) { reduce_and_update(plan, shared); }

}  // namespace geco::cuda

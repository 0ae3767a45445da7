#include "cuda/lagrangian_kernel.cuh"
#include "cuda/linked.cuh"

namespace geco::cuda {

__device__ void linked_elementwise(const Plan& plan, const BlockPart& part, Shared& shared) {
  elementwise<SquaredAlone, false>(plan, part, shared);
}

__device__ void linked_reduce_and_update(const Plan& plan, Shared& shared) { reduce_and_update(plan, shared); }

}  // namespace geco::cuda

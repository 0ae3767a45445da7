#include "cuda/beside_windows.cuh"
#include "cuda/finish.cuh"
#include "cuda/items.cuh"

namespace geco::cuda {

__device__ void item_beside_windows(const Plan& plan, const Share& share, Shared& shared) {
  plain_item<false>(plan, share, shared);
}

__device__ void finish_beside_windows(const Plan& plan, Shared& shared) { finish(plan, shared); }

}  // namespace geco::cuda

#include "cuda/lagrangian_kernel.cuh"

namespace geco::cuda {

void launch_weighted_squares(const Plan& plan, const Place& place) { launch<WeightedSquares>(plan, place); }

}  // namespace geco::cuda

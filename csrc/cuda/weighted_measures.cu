#include "cuda/lagrangian_kernel.cuh"

namespace geco::cuda {

void launch_weighted_measures(const Plan& plan, const Place& place) { launch<WeightedMeasures>(plan, place); }

}  // namespace geco::cuda

#include "cuda/lagrangian_kernel.cuh"

namespace geco::cuda {

void launch_any_measures(const Plan& plan, const Place& place) { launch<AnyMeasures>(plan, place); }

}  // namespace geco::cuda

#include "cuda/window_launch.cuh"

namespace geco::cuda {

void launch_windows_of_11(const Plan& plan, const Place& place) { launch_fixed<4, 11>(plan, place); }

}  // namespace geco::cuda

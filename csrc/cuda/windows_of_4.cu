#include "cuda/window_launch.cuh"

namespace geco::cuda {

void launch_windows_of_4(const Plan& plan, const Place& place) { launch_fixed<4, 4>(plan, place); }

}  // namespace geco::cuda

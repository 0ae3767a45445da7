#include "cuda/window_launch.cuh"

namespace geco::cuda {

void launch_windows_of_4_and_8(const Plan& plan, const Place& place) { launch_fixed<1, 8, 4>(plan, place); }

}  // namespace geco::cuda

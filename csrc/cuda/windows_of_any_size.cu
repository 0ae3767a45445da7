#include "cuda/window_launch.cuh"

namespace geco::cuda {

void launch_windows_of_any_size(const Plan& plan, const Place& place) {
  const WindowKernel& kernel = plan.strips.kernel;
  if (kernel.images == ImageTypes::kDouble) {
    return kernel.columns == 1 ? launch_march<AnyMarch<DoubleImages, 1>>(plan, place)
                               : launch_march<AnyMarch<DoubleImages, 2>>(plan, place);
  }
  return kernel.columns == 1 ? launch_march<AnyMarch<FloatImages, 1>>(plan, place)
                             : launch_march<AnyMarch<FloatImages, 4>>(plan, place);
}

}  // namespace geco::cuda

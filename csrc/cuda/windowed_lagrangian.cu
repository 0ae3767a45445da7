#include <atomic>

#include "cuda/device.h"
#include "cuda/finish.cuh"
#include "cuda/items.cuh"
#include "cuda/window_march.cuh"
#include "cuda/windowed_lagrangian.h"

namespace geco::cuda {
namespace {

// Apart from the windows, whose registers it does not need to share.
__device__ __noinline__ void other_item(const Plan& plan, const Share& share, Shared& shared) {
  plain_item<false>(plan, share, shared);
}

// As lagrangian_kernel, with windows: what they need of registers and shared memory is not asked of calls without them.
template <class Images, int columns>
__global__ void __launch_bounds__(kThreads, resident_window_blocks(sizeof(typename Images::Real) == 8, columns))
    windowed_lagrangian_kernel(const __grid_constant__ Plan plan) {
  GECO_DYNAMIC_SHARED(Shared, shared);
  const Share share = share_of(plan, static_cast<int>(blockIdx.x));
  if (plan.items[share.item].work == Work::kWindows) {
    windows<Images, columns>(plan, share, shared);
  } else {
    other_item(plan, share, shared);
  }
  if (is_last_block(plan, shared)) finish(plan, shared);
}

using Kernel = void (*)(Plan);

// Lets a kernel ask for all the shared memory that a block of the device may have. Asked for once per device.
void allow_shared_memory(Kernel kernel, std::atomic<bool>* allowed, int device) {
  constexpr int kDevices = 64;
  if (device < kDevices && allowed[device].load()) return;
  const int most = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most), "cudaFuncSetAttribute");
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
        "cudaFuncSetAttribute");
  if (device < kDevices) allowed[device].store(true);
}

template <class Images, int columns>
void launch(const Plan& plan, const Place& place) {
  static std::atomic<bool> allowed[64] = {};
  const Kernel kernel = windowed_lagrangian_kernel<Images, columns>;
  allow_shared_memory(kernel, allowed, place.device);
  const auto shared_bytes = static_cast<std::size_t>(window_memory(plan.strips, plan.window_count).end);
  GECO_LAUNCH(kernel, static_cast<unsigned>(plan.blocks), shared_bytes, place.stream, plan);
}

}  // namespace

void launch_windowed_lagrangian(const Plan& plan, const Place& place) {
  const int columns = plan.strips.columns;
  switch (plan.strips.images) {
    case ImageTypes::kDouble: return launch<DoubleImages, 2>(plan, place);
    case ImageTypes::kFloat:
      return columns == 1 ? launch<FloatImages, 1>(plan, place) : launch<FloatImages, 4>(plan, place);
    case ImageTypes::kFloat32: break;
  }
  if (columns == 1) return launch<Float32Images, 1>(plan, place);
  return columns == 2 ? launch<Float32Images, 2>(plan, place) : launch<Float32Images, 4>(plan, place);
}

}  // namespace geco::cuda

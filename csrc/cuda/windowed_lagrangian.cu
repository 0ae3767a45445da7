#include <atomic>

#include "cuda/device.h"
#include "cuda/finish.cuh"
#include "cuda/items.cuh"
#include "cuda/window_march.cuh"
#include "cuda/windowed_lagrangian.h"

namespace geco::cuda {
namespace {

// Compiled once for all kernels below; their registers are for the windows.
__device__ __noinline__ void plain_item_called(const Plan& plan, const Share& share, Shared& shared) {
  plain_item(plan, share, shared);
}

// As lagrangian_kernel, with windows: what they need of registers and shared memory is not asked of calls without them.
template <class Real, int columns>
__global__ void __launch_bounds__(kThreads, resident_window_blocks(sizeof(Real) == 8, columns))
    windowed_lagrangian_kernel(const __grid_constant__ Plan plan) {
  GECO_DYNAMIC_SHARED(Shared, shared);
  const Share share = share_of(plan, static_cast<int>(blockIdx.x));
  if (plan.items[share.item].work == Work::kWindows) {
    windows<Real, columns>(plan, share, shared);
  } else {
    plain_item_called(plan, share, shared);
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

template <class Real, int columns>
void launch(const Plan& plan, const Place& place) {
  static std::atomic<bool> allowed[64] = {};
  const Kernel kernel = windowed_lagrangian_kernel<Real, columns>;
  allow_shared_memory(kernel, allowed, place.device);
  const auto shared_bytes = static_cast<std::size_t>(window_memory(plan.strips, plan.window_count).end);
  GECO_LAUNCH(kernel, static_cast<unsigned>(plan.blocks), shared_bytes, place.stream, plan);
}

}  // namespace

void launch_windowed_lagrangian(const Plan& plan, const Place& place) {
  const int columns = plan.strips.columns;
  if (plan.strips.is_double) return columns == 1 ? launch<double, 1>(plan, place) : launch<double, 2>(plan, place);
  switch (columns) {
    case 1: return launch<float, 1>(plan, place);
    case 2: return launch<float, 2>(plan, place);
    default: return launch<float, 4>(plan, place);
  }
}

}  // namespace geco::cuda

// Launches of the kernels with windows, compiled in files by the sizes of patches.
#pragma once

#include <atomic>

#include "cuda/device.h"
#include "cuda/linked.cuh"
#include "cuda/reduce.h"
#include "cuda/window_any_size.cuh"
#include "cuda/window_march.cuh"
#include "cuda/windowed_lagrangian.h"

namespace geco::cuda {

// As lagrangian_kernel, with windows: what they need of registers and shared memory is not asked of calls without them.
template <class March>
__global__ void __launch_bounds__(kThreads, 1) windowed_lagrangian_kernel(const __grid_constant__ Plan plan) {
  GECO_DYNAMIC_SHARED(Shared, shared);
  const BlockPart part = part_of(plan, static_cast<int>(blockIdx.x));
  if (plan.operands[part.operand].operation == Operation::kWindows) {
    windows<March>(plan, part, shared);
  } else {
    linked_elementwise(plan, part, shared);
  }
  if (is_last_block(plan.ticket, gridDim.x, shared.is_last)) linked_reduce_and_update(plan, shared);
}

using WindowedKernel = void (*)(Plan);

// Lets a kernel ask for all the shared memory that a block of the device may have. Asked for once per device.
inline void allow_shared_memory(WindowedKernel kernel, std::atomic<bool>* allowed, int device) {
  constexpr int kDevices = 64;
  if (device < kDevices && allowed[device].load()) return;
  const int most = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most), "cudaFuncSetAttribute");
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
        "cudaFuncSetAttribute");
  if (device < kDevices) allowed[device].store(true);
}

template <class March>
void launch_march(const Plan& plan, const Place& place) {
  static std::atomic<bool> allowed[64] = {};
  const WindowedKernel kernel = windowed_lagrangian_kernel<March>;
  allow_shared_memory(kernel, allowed, place.device);
  const auto shared_bytes = static_cast<std::size_t>(window_memory(plan.strips, plan.window_count).end);
  GECO_LAUNCH(kernel, static_cast<unsigned>(plan.blocks), shared_bytes, place.stream, plan);
}

// Launches the kernel that a plan asks for, if it is this one; false if not.
template <class Images, int channels, int columns, int size, int smaller>
bool launch_if_asked(const Plan& plan, const Place& place) {
  constexpr WindowKernel kKernel{size, smaller, channels, columns, Images::interleaved, Images::types};
  if constexpr (is_compiled(kKernel)) {
    if (!(plan.strips.kernel == kKernel)) return false;
    launch_march<FixedMarch<Images, channels, columns, size, smaller>>(plan, place);
    return true;
  }
  return false;
}

// All kernels for patches of `size`, or of `size` and `smaller`.
template <int columns, int size, int smaller = 0>
void launch_fixed(const Plan& plan, const Place& place) {
  const bool launched = launch_if_asked<Float32Images<false>, 3, columns, size, smaller>(plan, place) ||
                        launch_if_asked<Float32Images<false>, 1, columns, size, smaller>(plan, place) ||
                        launch_if_asked<Float32Images<true>, 3, columns, size, smaller>(plan, place) ||
                        launch_if_asked<FloatImages, 3, columns, size, smaller>(plan, place) ||
                        launch_if_asked<FloatImages, 1, columns, size, smaller>(plan, place);
  if (!launched) throw std::logic_error("a plan for a kernel that is not compiled");
}

}  // namespace geco::cuda

// How windowed constraints are shared out: the windows of a plan, the strips of its images, the memory of its blocks.
#pragma once

#include <cstdint>

#include "cuda/plan.h"

namespace geco::cuda {

// Does nothing without windowed constraints. Throws std::invalid_argument where patches are too large for the device.
void plan_windows(const LossCall& call, const DeviceSize& device, Plan& plan);

std::int64_t most_window_partials(const DeviceSize& device);

}  // namespace geco::cuda

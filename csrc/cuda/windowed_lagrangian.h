// The Lagrangian kernel for calls with windowed constraints.
#pragma once

#include "cuda/lagrangian.h"
#include "cuda/plan.h"

namespace geco::cuda {

void launch_windowed_lagrangian(const Plan& plan, const Place& place);

}  // namespace geco::cuda

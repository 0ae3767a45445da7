// The Lagrangian kernels for calls with windowed constraints.
#pragma once

#include "cuda/plan.h"
#include "cuda/step.h"

namespace geco::cuda {

// For patches of these sizes, each in a file of its own.
void launch_windows_of_4(const Plan& plan, const Place& place);
void launch_windows_of_8(const Plan& plan, const Place& place);
void launch_windows_of_11(const Plan& plan, const Place& place);
void launch_windows_of_16(const Plan& plan, const Place& place);
void launch_windows_of_4_and_8(const Plan& plan, const Place& place);
void launch_windows_of_any_size(const Plan& plan, const Place& place);

}  // namespace geco::cuda

// The kernels of models on an NVIDIA GPU, each in one launch. Tensors of a call are addresses on the device; nothing
// here waits for it.
#pragma once

#include "contract.h"
#include "cuda/workspace.h"

namespace geco::cuda {

void compute(const GaussianCall& call, const Place& place);
void compute(const GaussianBackwardCall& call, const Place& place);
void compute(const GatesCall& call, const Place& place);
void compute(const GatesBackwardCall& call, const Place& place);
void compute(const CouplingCall& call, const Place& place);
void compute(const CouplingBackwardCall& call, const Place& place);

}  // namespace geco::cuda

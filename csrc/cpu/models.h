// The kernels of the models on the CPU.
#pragma once

#include "contract.h"

namespace geco::cpu {

void compute(const GaussianCall& call, int threads);
void compute(const GaussianBackwardCall& call, int threads);
void compute(const GatesCall& call, int threads);
void compute(const GatesBackwardCall& call, int threads);
void compute(const CouplingCall& call, int threads);
void compute(const CouplingBackwardCall& call, int threads);

}  // namespace geco::cpu

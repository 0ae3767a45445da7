// The fused kernels of the models on the CPU.
#pragma once

#include "model_call.h"

namespace geco::cpu {

void gaussian_rsample_kl(const GaussianCall& call, int threads);
void gaussian_rsample_kl_backward(const GaussianBackwardCall& call, int threads);
void lstm_gates(const GatesCall& call, int threads);
void lstm_gates_backward(const GatesBackwardCall& call, int threads);
void affine_coupling(const CouplingCall& call, int threads);
void affine_coupling_backward(const CouplingBackwardCall& call, int threads);

}  // namespace geco::cpu

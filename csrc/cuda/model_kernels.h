// The kernels of models on an NVIDIA GPU, each in one launch. Tensors of a call are addresses on the device; nothing
// here waits for it.
#pragma once

#include <cstdint>
#include <functional>

#include "model_call.h"

namespace geco::cuda {

// Where a call runs.
struct ModelPlace {
  int device;
  void* stream;
  std::function<double*()> workspace;  // of the stream (workspace.h). Asked for where few large examples leave sums.
};

void gaussian_rsample_kl(const GaussianCall& call, const ModelPlace& place);
void gaussian_rsample_kl_backward(const GaussianBackwardCall& call, const ModelPlace& place);
void lstm_gates(const GatesCall& call, const ModelPlace& place);
void lstm_gates_backward(const GatesBackwardCall& call, const ModelPlace& place);
void affine_coupling(const CouplingCall& call, const ModelPlace& place);
void affine_coupling_backward(const CouplingBackwardCall& call, const ModelPlace& place);

}  // namespace geco::cuda

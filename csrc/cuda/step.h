// The whole operator on an NVIDIA GPU, in one launch: constraint vector, gradients, moving average, multiplier update,
// loss. Tensors of the call are addresses on the device; nothing here waits for it.
#pragma once

#include <cstdint>
#include <string>

#include "contract.h"
#include "cuda/workspace.h"

namespace geco::cuda {

// A call beyond these does not fit the tables that a kernel takes as its parameters.
constexpr int kMaxInputs = 12;
constexpr int kMaxConstraints = 12;
constexpr int kMaxMeasures = 4;  // of an input
constexpr int kMaxRows = 1024;
constexpr int kMaxDimensions = 4;  // of an input, after neighbouring ones are merged; the channels' not counted

// Of a device, for any call.
std::int64_t workspace_words(int device);

// Why a device cannot serve a call (it does not fit the tables of a kernel, or a block's memory), or nothing. Plans the
// call, launches nothing.
std::string refuses(const LossCall& call, int device);

// Loss and gradients; with call.update the state moves too (training), without it is only read (evaluation).
void lagrangian(const LossCall& call, const Place& place);

// The two halves of a training step for several processes, see cpu/lagrangian.h.
void constraint_sums(const LossCall& call, const Place& place, double* sums);
void update_from_sums(const LossCall& call, const Place& place, const double* sums, int world_size,
                      double* gradient_factor);

// gradients[i] *= factor in place, or rounded into outputs[i]. `factor` is on the device; where it is one, buffers that
// are scaled in place are not touched.
void scale_gradients(const Tensor* gradients, const Tensor* outputs, int count, const Tensor& factor,
                     const Place& place);

// Compute capability of a device, without making a context on it. Throws where the driver is missing or too old.
struct Capability {
  int major, minor;
};
Capability capability_of(int device);

// The newest CUDA that the driver knows, as in 13000.
int driver_version();

// Whether a graph is being captured from what goes to a stream.
bool is_capturing(void* stream);

// Why a device cannot run these kernels (it is busy, or has no code for them), or nothing. Makes a context on it.
std::string device_problem(int device);

}  // namespace geco::cuda

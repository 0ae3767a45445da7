// The whole operator on an NVIDIA GPU, in one launch: constraint vector, gradients, moving average, multiplier update,
// loss. Tensors of the call are addresses on the device; nothing here waits for it.
#pragma once

#include <cstdint>
#include <string>

#include "call.h"

namespace geco::cuda {

// A call beyond these does not fit the tables that a kernel takes as its parameters.
constexpr int kMaxInputs = 12;
constexpr int kMaxTerms = 12;
constexpr int kMaxRows = 1024;
constexpr int kMaxDimensions = 4;  // of an input, after neighbouring ones are merged; the channels' not counted

// Where a call runs.
struct Place {
  int device;
  void* stream;
  double* workspace = nullptr;  // on the device, at least workspace_words() + rows of the call
};

std::int64_t workspace_words(int device);

// Loss and gradients; with call.update the state moves too (training), without it is only read (evaluation).
void lagrangian(const Call& call, const Place& place);

// The two halves of a training step for several processes, see cpu/lagrangian.h.
void constraint_sums(const Call& call, const Place& place, double* sums);
void update_from_sums(const Call& call, const Place& place, const double* sums, int world_size,
                      double* gradient_factor);

// gradients[i] *= factor in place, or rounded into outputs[i]. `factor` is on the device; where it is one, buffers that
// are scaled in place are not touched.
void scale_gradients(const Tensor* gradients, const Tensor* outputs, int count, const Tensor& factor,
                     const Place& place);

// Why a device cannot run these kernels (an old driver, an architecture they were not compiled for), or nothing.
std::string device_problem(int device);

}  // namespace geco::cuda

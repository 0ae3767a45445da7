// What Python hands to the kernels of the models: addresses and how they lie in memory, no PyTorch.
#pragma once

#include <cstdint>

#include "call.h"

namespace geco {

// All tensors of a call but gates, and the sums, have this many numbers: [batch, rows, inner] with dense `inner`.
// One row an example when tensors are contiguous, one for each pixel when they are channels_last.
struct Extent {
  std::int64_t batch = 0, rows = 1, inner = 0;
};

// Strides in elements, zero where a tensor is expanded. Nothing is written to a strided operand that is not an output.
struct Strided {
  void* data = nullptr;  // null: absent; a gradient that is absent is zero
  std::int64_t batch_stride = 0, row_stride = 0;

  explicit operator bool() const { return data != nullptr; }
};

// One number for each example, [batch]: double when the call's type is float64, else float.
struct PerExample {
  void* data = nullptr;  // null: absent; a gradient that is absent is zero
  std::int64_t stride = 1;

  explicit operator bool() const { return data != nullptr; }
};

// What all calls say. `type` is that of all operands: float32, float64, float16 or bfloat16.
struct ModelCall {
  DataType type = DataType::kFloat32;
  Extent extent;
};

// The formulas are those of math/gaussian.h, math/lstm.h and math/coupling.h.

struct GaussianCall : ModelCall {
  Strided q_mean, q_log_std, p_mean, p_log_std, noise;  // without p_mean and p_log_std: the standard normal
  Strided z;                                            // out
  PerExample kl;                                        // out
};

struct GaussianBackwardCall : ModelCall {
  Strided grad_z;
  PerExample grad_kl;
  Strided q_mean, q_log_std, p_mean, p_log_std, noise;
  Strided of_q_mean, of_q_log_std, of_p_mean, of_p_log_std;  // out; the last two where there is a prior
};

// A row of gates, and of their gradient, has those of input, forget, candidate and output one after the other, each
// `inner` numbers; the extent is that of the cell.
struct GatesCall : ModelCall {
  Strided gates, cell;
  Strided hidden, new_cell;  // out
};

struct GatesBackwardCall : ModelCall {
  Strided grad_hidden, grad_cell, gates, cell;
  Strided of_gates, of_cell;  // out
};

struct CouplingCall : ModelCall {
  bool inverse = false;
  Strided x, log_scale, shift;
  Strided y;           // out
  PerExample log_det;  // out
};

struct CouplingBackwardCall : ModelCall {
  bool inverse = false;
  Strided grad_y;
  PerExample grad_log_det;
  Strided value, log_scale;    // value: x, or what came out of the inverse
  Strided of_x, of_log_scale;  // out
  Strided of_shift;            // out, of the inverse: that of the forward direction is grad_y
};

}  // namespace geco

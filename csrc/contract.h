// What Python hands to the kernels, of the loss and of models: shapes, strides and addresses, no PyTorch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "math/measure.h"
#include "math/multiplier.h"

namespace geco {

//   enumerator, name in PyTorch
#define GECO_DATA_TYPES(X) \
  X(kFloat32, "float32") X(kFloat64, "float64") X(kFloat16, "float16") X(kBFloat16, "bfloat16") X(kInt64, "int64")

#define GECO_ENUMERATOR(enumerator, name) enumerator,
enum class DataType : int { GECO_DATA_TYPES(GECO_ENUMERATOR) };
#undef GECO_ENUMERATOR

// In bytes.
GECO_HD constexpr int size_of(DataType type) {
  return type == DataType::kFloat64 || type == DataType::kInt64 ? 8 : type == DataType::kFloat32 ? 4 : 2;
}

constexpr int kMaxRank = 8;

struct Tensor {
  void* data = nullptr;  // null: absent
  DataType type = DataType::kFloat32;
  int rank = 0;
  std::int64_t sizes[kMaxRank] = {};
  std::int64_t strides[kMaxRank] = {};  // in elements

  explicit operator bool() const { return data != nullptr; }
  std::int64_t elements() const;
};

// One thing that is compared: a prediction with its target and the buffer its gradient is written to.
// A scalar has no target. With weights, a measured difference counts as many times as its weight says, and the sum over
// them is the constraint of an example: geco_ext/weights.py has divided them. Where a weight is zero, neither tensor
// matters and the gradient is zero. They are float64 where prediction or target is, else float32, and a stride of zero
// shares them; windowed constraints know none.
struct Input {
  Tensor prediction, target, gradient, weights;
};

// The square patches of a windowed constraint: those that fit, every `stride` pixels.
struct Patches {
  std::int64_t size = 1, stride = 1;
  double eps = 0;            // added to variances and covariances
  bool per_channel = false;  // statistics of each channel alone, or of all channels jointly
};

// One constraint, or one for each channel, of the constraint vector.
struct Constraint {
  ConstraintKind kind = ConstraintKind::kScalar;
  int first_row = 0, rows = 1;  // its rows of the constraint vector; rows > 1: one per channel
  std::vector<int> inputs;      // several: a mean over feature maps
  bool mean = true;             // compared number by number: mean or sum over the elements of an example
  double eps = 0;               // of the measure of a difference
  Patches patches;              // windowed constraints; they read one input, the images
};

struct LossCall {
  const std::vector<Constraint>* constraints = nullptr;
  std::vector<Input> inputs;
  Tensor kl, kl_gradient;  // kl: absent, 0-d or [B]
  State state{};
  std::int64_t batch = 0;
  std::int64_t image_elements = 0;           // of one example of x_hat
  const MultiplierUpdate* update = nullptr;  // null: evaluation, the state is only read
  void* loss = nullptr;
  bool loss_is_double = false;
  int threads = 1;
};

// D of lambda* = D / (2 s): how many numbers of an example a row of the constraint compares.
double compared_elements(const LossCall& call, const Constraint& constraint);

// What elementwise constraints measure of an input: squared differences first, if any does.
std::vector<Measure> measures_of(const LossCall& call, int input);

inline Measure measure_of(const Constraint& constraint) { return {constraint.kind, constraint.eps}; }

// Weight of one measured difference of this input in the constraint, before the mean over the batch; one where the
// input has weights.
double difference_weight(const Constraint& constraint, const Input& input);

// Positions of a patch along a side of an image.
inline std::int64_t positions(std::int64_t extent, const Patches& patches) {
  return (extent - patches.size) / patches.stride + 1;
}

// Numbers that the statistics of one patch are taken over.
std::int64_t numbers_of_patch(const Patches& patches, const Input& images);

// Weight of one patch (of one channel, where each has its own) in the constraint, before the mean over the batch.
double patch_weight(const Patches& patches, const Input& images);

// Strides are in elements.
struct Dimension {
  std::int64_t size, prediction, target, gradient;
};

struct Offsets {
  std::int64_t prediction, target, gradient, weights = 0;
};

struct Loop : Dimension {
  std::int64_t weights;
};

// The loops over the elements of an input, in the order of the gradient's memory, dimensions coalesced where all
// tensors allow it. Where constraints are per channel, the loop over channels stands outside all others.
struct LoopNest {
  Loop channel{{1, 0, 0, 0}, 0};
  std::vector<Loop> outer;  // slowest first
  Loop inner{{1, 1, 1, 1}, 1};
  std::int64_t iterations = 1;  // of the outer loops together, for one channel
};

LoopNest loop_nest(const Input& input, bool per_channel);

// Where the inner loop begins in an iteration of the outer ones.
Offsets offsets_of(const LoopNest& loops, std::int64_t channel, std::int64_t iteration);

// Calls of the kernels of models.

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

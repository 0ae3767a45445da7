// What Python hands to the kernels: shapes, strides and addresses, no PyTorch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "math/multiplier.h"

namespace geco {

//   enumerator, name in PyTorch
#define GECO_DATA_TYPES(X) \
  X(kFloat32, "float32") X(kFloat64, "float64") X(kFloat16, "float16") X(kBFloat16, "bfloat16") X(kInt64, "int64")

#define GECO_ENUMERATOR(enumerator, name) enumerator,
enum class DataType : int { GECO_DATA_TYPES(GECO_ENUMERATOR) };
#undef GECO_ENUMERATOR

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
// A class probability has labels for a target; a scalar has none.
struct Input {
  Tensor prediction, target, gradient;
};

// The square patches of a windowed constraint: those that fit, every `stride` pixels.
struct Patches {
  std::int64_t size = 1, stride = 1;
  double eps = 0;            // added to variances and covariances
  bool per_channel = false;  // statistics of each channel alone, or of all channels jointly
};

// One constraint, or one for each channel, of the constraint vector.
struct Term {
  TermKind kind = TermKind::kScalar;
  int first_row = 0, rows = 1;  // its rows of the constraint vector; rows > 1: one per channel
  std::vector<int> inputs;      // several: a mean over feature maps
  bool mean = true;             // squared error: mean or sum over the elements of an example
  bool from_logits = true;      // class probability: softmax first
  bool log_gradient = false;    // class probability: the gradient is that of the logarithm
  Patches patches;              // windowed constraints; they read one input, the images
};

struct Call {
  const std::vector<Term>* terms = nullptr;
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

// D of lambda* = D / (2 s): how many numbers of an example a row of the term compares.
double compared_elements(const Call& call, const Term& term);

// Weight of one squared difference of this input in the term's constraint, before the mean over the batch.
double squared_error_weight(const Term& term, const Input& input);

// Positions of a patch along a side of an image.
inline std::int64_t positions(std::int64_t extent, const Patches& patches) {
  return (extent - patches.size) / patches.stride + 1;
}

// Numbers that the statistics of one patch are taken over.
std::int64_t numbers_of_patch(const Patches& patches, const Input& images);

// Weight of one patch (of one channel, where each has its own) in the constraint, before the mean over the batch.
double patch_weight(const Patches& patches, const Input& images);

}  // namespace geco

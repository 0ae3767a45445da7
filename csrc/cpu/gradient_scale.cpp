#include <algorithm>

#include "cpu/lagrangian.h"
#include "cpu/parallel.h"
#include "cpu/run.h"

namespace geco::cpu {
namespace {

constexpr std::int64_t kChunk = 1 << 15;

// Buffers and outputs are dense and share their strides, so memory order is the same in both.
void scale_gradient(const Tensor& gradient, const Tensor& output, double factor, int threads) {
  const std::int64_t elements = gradient.elements();
  const bool is_double = gradient.type == DataType::kFloat64;
  const ScaleRun run = run_table().scale[static_cast<int>(output.type)];
  parallel_for((elements + kChunk - 1) / kChunk, elements < kParallelElements ? 1 : threads, [&](std::int64_t item) {
    const std::int64_t begin = item * kChunk, length = std::min(kChunk, elements - begin);
    if (is_double) {
      const double* in = static_cast<const double*>(gradient.data) + begin;
      double* out = static_cast<double*>(output.data) + begin;
      for (std::int64_t i = 0; i < length; ++i) out[i] = in[i] * factor;
    } else {
      run(static_cast<const float*>(gradient.data) + begin,
          static_cast<char*>(output.data) + begin * size_of(output.type), length, static_cast<float>(factor));
    }
  });
}

}  // namespace

void scale_gradients(const Tensor* gradients, const Tensor* outputs, int count, double factor, int threads) {
  for (int i = 0; i < count; ++i) {
    const bool in_place = outputs[i].data == gradients[i].data;
    if (in_place && factor == 1.0) continue;
    scale_gradient(gradients[i], outputs[i], factor, threads);
  }
}

}  // namespace geco::cpu

#include <algorithm>
#include <cstdint>

#include "cuda/device.h"
#include "cuda/memory.h"
#include "cuda/step.h"
#include "cuda/threads.h"

namespace geco::cuda {
namespace {

constexpr int kMaxBuffers = 32;  // of a launch
constexpr int kUnroll = 4;       // vectors of a thread in one round
constexpr int kBlocksPerMultiprocessor = 8;

// Buffer and output are dense and share their strides, so memory order is the same in both.
struct Buffer {
  const void* in;
  void* out;
  std::int64_t elements;
  int first_block, blocks;
  std::int8_t in_type, out_type;
  bool vectorised;
};

struct Buffers {
  Buffer of[kMaxBuffers];
  const void* factor;
  int count;
  int blocks;
  bool factor_is_double;
};

template <class In, class Out>
__device__ __forceinline__ Out scaled(In value, double factor) {
  if constexpr (sizeof(In) == 8) {
    return static_cast<Out>(value * factor);
  } else {
    return round_to<Out>(value * static_cast<float>(factor));
  }
}

template <class In, class Out>
__device__ __forceinline__ void scale(const Buffer& buffer, int block, double factor) {
  constexpr int kWidth = width_of(sizeof(In));
  const In* in = static_cast<const In*>(buffer.in);
  Out* out = static_cast<Out*>(buffer.out);
  const std::int64_t vectors = buffer.vectorised ? buffer.elements / kWidth : 0;
  const std::int64_t step = static_cast<std::int64_t>(buffer.blocks) * kThreads;
  const std::int64_t start = static_cast<std::int64_t>(block) * kThreads + threadIdx.x;
  for (std::int64_t first = start; first < vectors; first += step * kUnroll) {
    Vector<In, kWidth> values[kUnroll];
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      if (first + k * step < vectors) values[k] = load_last<In, kWidth>(in + (first + k * step) * kWidth);
    }
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      if (first + k * step >= vectors) continue;
      Vector<Out, kWidth> result;
#pragma unroll
      for (int e = 0; e < kWidth; ++e) result.values[e] = scaled<In, Out>(values[k].values[e], factor);
      store(out + (first + k * step) * kWidth, result, false);
    }
  }
  for (std::int64_t i = vectors * kWidth + start; i < buffer.elements; i += step) {
    out[i] = scaled<In, Out>(in[i], factor);
  }
}

__global__ void __launch_bounds__(kThreads) gradient_scale_kernel(const __grid_constant__ Buffers buffers) {
  const double factor = buffers.factor_is_double ? *static_cast<const double*>(buffers.factor)
                                                 : static_cast<double>(*static_cast<const float*>(buffers.factor));
  int i = buffers.count - 1;
  while (i > 0 && static_cast<int>(blockIdx.x) < buffers.of[i].first_block) --i;
  const Buffer& buffer = buffers.of[i];
  if (buffer.in == buffer.out && factor == 1.0) return;
  const int block = static_cast<int>(blockIdx.x) - buffer.first_block;
  if (static_cast<DataType>(buffer.in_type) == DataType::kFloat64) return scale<double, double>(buffer, block, factor);
  switch (static_cast<DataType>(buffer.out_type)) {
    case DataType::kFloat16: return scale<float, Half>(buffer, block, factor);
    case DataType::kBFloat16: return scale<float, BFloat16>(buffer, block, factor);
    default: return scale<float, float>(buffer, block, factor);
  }
}

bool aligned(const void* address) { return reinterpret_cast<std::uintptr_t>(address) % 16 == 0; }

void add(Buffers& buffers, const Tensor& gradient, const Tensor& output, std::int64_t most_blocks) {
  const std::int64_t elements = gradient.elements();
  if (elements == 0) return;
  const int width = width_of(gradient.type == DataType::kFloat64 ? 8 : 4);
  const std::int64_t blocks = (elements + kThreads * width - 1) / (kThreads * width);
  Buffer& buffer = buffers.of[buffers.count++];
  buffer.in = gradient.data;
  buffer.out = output.data;
  buffer.elements = elements;
  buffer.in_type = static_cast<std::int8_t>(gradient.type);
  buffer.out_type = static_cast<std::int8_t>(output.type);
  buffer.vectorised = aligned(gradient.data) && aligned(output.data);
  buffer.first_block = buffers.blocks;
  buffer.blocks = static_cast<int>(std::min(blocks, most_blocks));
  buffers.blocks += buffer.blocks;
}

}  // namespace

void scale_gradients(const Tensor* gradients, const Tensor* outputs, int count, const Tensor& factor,
                     const Place& place) {
  const DeviceGuard guard(place.device);
  const std::int64_t most_blocks = static_cast<std::int64_t>(kBlocksPerMultiprocessor) * multiprocessors(place.device);
  for (int first = 0; first < count; first += kMaxBuffers) {
    Buffers buffers{};
    buffers.factor = factor.data;
    buffers.factor_is_double = factor.type == DataType::kFloat64;
    const int end = std::min(count, first + kMaxBuffers);
    for (int i = first; i < end; ++i) add(buffers, gradients[i], outputs[i], most_blocks);
    if (buffers.count == 0) continue;
    GECO_LAUNCH(gradient_scale_kernel, static_cast<unsigned>(buffers.blocks), std::size_t{0}, place.stream, buffers);
    check_launch("gradient_scale", buffers.blocks, gradients[first]);
  }
}

}  // namespace geco::cuda

// Tensors of any type and layout in host memory, for the runs of the kernels.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "contract.h"
#include "cpu/constraints.h"
#include "cpu/isa/kernels.h"
#include "cpu/step.h"
#include "math/half.h"

namespace arrays {

using geco::DataType;
using geco::Tensor;
using Sizes = std::vector<std::int64_t>;

enum class Layout { kContiguous, kChannelsLast, kReversed, kShifted, kWider, kCropped, kWideRows, kRepeated };

// A tensor with its memory. Copies have memory of their own.
class Array {
 public:
  Array() = default;

  // `shift`: elements from the 16-byte grid to the first one; kShifted is a shift of one. In kWider every example is
  // followed by a gap; in kCropped whatever lies along a dimension, by three elements; in kWideRows every row, which
  // then starts at a multiple of 16 elements. kRepeated: all examples are the same memory.
  Array(DataType type, const Sizes& sizes, Layout layout = Layout::kContiguous, std::int64_t shift = 0) {
    tensor_.type = type;
    tensor_.rank = static_cast<int>(sizes.size());
    std::vector<int> order(sizes.size());  // of memory, outermost first
    for (int d = 0; d < tensor_.rank; ++d) order[d] = d;
    if (layout == Layout::kReversed) std::reverse(order.begin(), order.end());
    if (layout == Layout::kChannelsLast && tensor_.rank > 2) {
      order.erase(order.begin() + 1);
      order.push_back(1);
    }
    std::int64_t stride = 1;
    for (auto d = order.rbegin(); d != order.rend(); ++d) {
      tensor_.sizes[*d] = sizes[*d];
      tensor_.strides[*d] = stride;
      stride *= sizes[*d];
      if (layout == Layout::kWider && d + 1 != order.rend() && *(d + 1) == 0) stride += 8;
      if (layout == Layout::kCropped) stride += 3;
      if (layout == Layout::kWideRows && d == order.rbegin()) stride = (stride / 16 + 1) * 16;
      if (layout == Layout::kRepeated && *d == 0) tensor_.strides[*d] = 0;
    }
    shift_ = layout == Layout::kShifted ? 1 : shift;
    std::int64_t last = shift_;  // memory ends with it, where AddressSanitizer watches
    for (int d = 0; d < tensor_.rank; ++d) last += (tensor_.sizes[d] - 1) * tensor_.strides[d];
    memory_.resize(static_cast<std::size_t>((last + 1) * geco::size_of(type)));
    present_ = true;
  }

  // Values around 0.5, as images have.
  Array& fill(std::mt19937& random) {
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    for (std::int64_t i = 0; i < elements(); ++i) set(i, uniform(random));
    return *this;
  }

  Tensor tensor() const {
    if (!present_) return Tensor{};
    Tensor result = tensor_;
    auto* start = const_cast<unsigned char*>(memory_.data());  // a multiple of 16 bytes, as all that new returns
    result.data = start + shift_ * geco::size_of(tensor_.type);
    return result;
  }

  std::int64_t elements() const { return present_ ? tensor_.elements() : 0; }
  DataType type() const { return tensor_.type; }

  double get(std::int64_t i) const { return geco::cpu::read_element(tensor(), offset(i)); }

  void set(std::int64_t i, double value) {
    const std::int64_t at = offset(i);
    void* data = tensor().data;
    switch (tensor_.type) {
      case DataType::kFloat32: static_cast<float*>(data)[at] = static_cast<float>(value); break;
      case DataType::kFloat64: static_cast<double*>(data)[at] = value; break;
      case DataType::kFloat16: static_cast<geco::Half*>(data)[at] = geco::to_half(static_cast<float>(value)); break;
      case DataType::kBFloat16:
        static_cast<geco::BFloat16*>(data)[at] = geco::to_bfloat16(static_cast<float>(value));
        break;
      case DataType::kInt64: static_cast<std::int64_t*>(data)[at] = static_cast<std::int64_t>(value); break;
    }
  }

 private:
  std::int64_t offset(std::int64_t i) const {
    std::int64_t at = 0;
    for (int d = tensor_.rank - 1; d >= 0; --d) {
      at += i % tensor_.sizes[d] * tensor_.strides[d];
      i /= tensor_.sizes[d];
    }
    return at;
  }

  Tensor tensor_;
  std::vector<unsigned char> memory_;
  std::int64_t shift_ = 0;
  bool present_ = false;
};

// Weights as they come: of all channels or of each, a third of them zero.
inline Array new_weights(DataType type, Sizes sizes, bool shared, Layout layout, std::mt19937& random) {
  if (shared) sizes[1] = 1;
  Array weights = Array(type, sizes, layout).fill(random);
  for (std::int64_t i = 0; i < weights.elements(); ++i) {
    if (weights.get(i) < 0.3) weights.set(i, 0);
  }
  return weights;
}

// As kernels take them: a size of one is that of all.
inline Tensor weights_tensor(Tensor weights) {
  for (int d = 0; d < weights.rank; ++d) {
    if (weights.sizes[d] == 1) weights.strides[d] = 0;
  }
  return weights;
}

inline DataType gradient_type(DataType type) {
  return type == DataType::kFloat64 ? DataType::kFloat64 : DataType::kFloat32;
}

}  // namespace arrays

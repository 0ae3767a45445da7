// Tensors in heap blocks of exactly their size: AddressSanitizer sees a read or write of one element too many.
#pragma once

#include <cstring>
#include <memory>

#include "arrays.h"

namespace arrays {

class Exact {
 public:
  Exact() = default;

  // A copy of the array, as far off the 16-byte grid as it is.
  explicit Exact(const Array& array) : tensor_(array.tensor()) {
    if (!tensor_) return;
    std::int64_t last = 0;
    for (int d = 0; d < tensor_.rank; ++d) last += (tensor_.sizes[d] - 1) * tensor_.strides[d];
    bytes_ = static_cast<std::size_t>((last + 1) * geco::size_of(tensor_.type));
    const std::size_t off = reinterpret_cast<std::uintptr_t>(tensor_.data) % 16;
    memory_.reset(new char[off + bytes_]);
    std::memcpy(memory_.get() + off, tensor_.data, bytes_);
    tensor_.data = memory_.get() + off;
  }

  const Tensor& tensor() const { return tensor_; }

  void copy_to(Array& array) const {
    if (tensor_) std::memcpy(array.tensor().data, tensor_.data, bytes_);
  }

  bool same_bits(const Exact& other) const {
    return bytes_ == other.bytes_ && (!tensor_ || std::memcmp(tensor_.data, other.tensor_.data, bytes_) == 0);
  }

 private:
  Tensor tensor_;
  std::unique_ptr<char[]> memory_;
  std::size_t bytes_ = 0;
};

}  // namespace arrays

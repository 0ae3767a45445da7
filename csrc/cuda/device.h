// The host's side of a device: which one is current, how large it is, and whether a launch went well.
#pragma once

#include <stdexcept>
#include <string>

#include "call.h"
#include "cuda/launch.h"

namespace geco::cuda {

inline void check(cudaError_t status, const std::string& what) {
  if (status != cudaSuccess) throw std::runtime_error(what + ": " + cudaGetErrorString(status));
}

// Makes a device current for the calling thread, and the previous one again at the end.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&previous_), "cudaGetDevice");
    if (device == previous_) return;
    check(cudaSetDevice(device), "cudaSetDevice(" + std::to_string(device) + ")");
    changed_ = true;
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(previous_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = 0;
  bool changed_ = false;
};

inline int device_attribute(cudaDeviceAttr attribute, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
  return value;
}

inline int multiprocessors(int device) { return device_attribute(cudaDevAttrMultiProcessorCount, device); }
inline int l2_bytes(int device) { return device_attribute(cudaDevAttrL2CacheSize, device); }

inline std::string shape_of(const Tensor& tensor) {
  std::string text = "[";
  for (int d = 0; d < tensor.rank; ++d) text += (d ? ", " : "") + std::to_string(tensor.sizes[d]);
  return text + "]";
}

inline void check_launch(const char* kernel, int blocks, const Tensor& largest) {
  const cudaError_t status = cudaGetLastError();
  if (status == cudaSuccess) return;
  check(status, std::string("CUDA kernel ") + kernel + " on a tensor of shape " + shape_of(largest) + " (" +
                    std::to_string(blocks) + " blocks of " + std::to_string(kThreads) + " threads)");
}

}  // namespace geco::cuda

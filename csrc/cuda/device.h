// The host's side of a device: which one is current, how large it is, and whether a launch went well.
#pragma once

#include <stdexcept>
#include <string>

#include "call.h"
#include "cuda/context.h"
#include "cuda/launch.h"

namespace geco::cuda {

// The runtime remembers an error until it is asked for: one that was reported here must not be taken for the next
// launch's.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

// Makes a device current for the calling thread, and at the end what was current before, if anything was.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) : previous_(current_context()) {
    int current = -1;
    if (previous_) check(cudaGetDevice(&current), "cudaGetDevice");
    if (device == current) return;
    changed_ = true;
    const cudaError_t status = cudaSetDevice(device);
    if (status == cudaSuccess) return;
    make_current(previous_);
    check(status, ("cudaSetDevice(" + std::to_string(device) + ")").c_str());
  }
  ~DeviceGuard() {
    if (changed_) make_current(previous_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  Context previous_;
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
  const std::string what = std::string("CUDA kernel ") + kernel + " on a tensor of shape " + shape_of(largest) + " (" +
                           std::to_string(blocks) + " blocks of " + std::to_string(kThreads) + " threads)";
  check(status, what.c_str());
}

}  // namespace geco::cuda

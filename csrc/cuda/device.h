// The host's side of a device: which one is current, how large it is, and whether a launch went well.
#pragma once

#include <stdexcept>
#include <string>

#include "contract.h"
#include "cuda/launch.h"

// The context that is current for a thread. The runtime tells a device only, and tells device 0 where no context is
// current: to go back to that by cudaSetDevice(0) would make a context on a device that nobody uses, of some hundred
// megabytes. So this asks the driver, through the runtime: the extension is not linked with the driver and imports
// where there is none.
#if defined(__CUDACC__)

#include <cuda.h>

namespace geco::cuda {

using Context = CUcontext;

namespace driver {

// Of the driver's interface since CUDA 4.0; null where there is no driver.
template <class Function>
Function* function(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
#if CUDART_VERSION >= 12050
  const cudaError_t status = cudaGetDriverEntryPointByVersion(name, &found, 4000, cudaEnableDefault, &result);
#else
  const cudaError_t status = cudaGetDriverEntryPoint(name, &found, cudaEnableDefault, &result);
#endif
  if (status != cudaSuccess) cudaGetLastError();
  return status == cudaSuccess ? reinterpret_cast<Function*>(found) : nullptr;
}

}  // namespace driver

// Null: none.
inline Context current_context() {
  static auto* const get = driver::function<CUresult(CUcontext*)>("cuCtxGetCurrent");
  Context context = nullptr;
  return get != nullptr && get(&context) == CUDA_SUCCESS ? context : nullptr;
}

inline void make_current(Context context) {
  static auto* const set = driver::function<CUresult(CUcontext)>("cuCtxSetCurrent");
  if (set != nullptr) set(context);
}

}  // namespace geco::cuda

#else

namespace geco::cuda {

using Context = shim::Context;
inline Context current_context() { return shim::context; }
inline void make_current(Context context) { shim::context = context; }

}  // namespace geco::cuda

#endif

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

// The context that is current for a thread. The runtime tells a device only, and tells device 0 where no context is
// current: to go back to that by cudaSetDevice(0) would make a context on a device that nobody uses, of some hundred
// megabytes. So this asks the driver, through the runtime: the extension is not linked with the driver and imports
// where there is none.
#pragma once

#include "cuda/launch.h"

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

// The words of CUDA that these kernels use. Compiled by another compiler they come from "shim.h", which runs a kernel
// as plain C++ (tests/hardware/cuda): so kernels name shared memory and launches through the macros here, use no
// cooperative groups, and have inline PTX only where __CUDA_ARCH__ is defined, beside C++ for all others.
#pragma once

#include <cstddef>
#include <type_traits>

#include "cuda/threads.h"

namespace geco::cuda {

// Bytes of a kernel's parameters, each where its alignment puts it.
template <class Kernel>
struct ParameterBytes;
template <class... Parameters>
struct ParameterBytes<void (*)(Parameters...)> {
  static constexpr std::size_t value() {
    std::size_t end = 0;
    ((end = (end + alignof(Parameters) - 1) / alignof(Parameters) * alignof(Parameters) + sizeof(Parameters)), ...);
    return end;
  }
};

// Beyond 4 KiB parameters need newer drivers and cost more to launch.
template <class Kernel>
constexpr bool kParametersFit = ParameterBytes<std::decay_t<Kernel>>::value() <= 4096;

}  // namespace geco::cuda

#if defined(__CUDACC__)

#include <cuda_runtime.h>

// The runs of the tests count the bytes that kernels move.
#define GECO_LOADED(bytes)
#define GECO_STORED(bytes)

// An address to store to, which the tests check to be a multiple of its type's alignment.
#define GECO_ON_GRID(address) (address)

// One block of dynamic shared memory, seen as `type`.
#define GECO_DYNAMIC_SHARED(type, name)                         \
  extern __shared__ __align__(16) unsigned char shared_bytes[]; \
  type& name = *reinterpret_cast<type*>(shared_bytes)

#define GECO_LAUNCH_HERE(kernel, blocks, shared_size, stream, ...) \
  kernel<<<blocks, ::geco::cuda::kThreads, shared_size, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)

#else

#include "shim.h"

#define GECO_LOADED(bytes) shim::count_bytes(shim::loaded_bytes, static_cast<long>(bytes))
#define GECO_STORED(bytes) shim::count_bytes(shim::stored_bytes, static_cast<long>(bytes))

#define GECO_ON_GRID(address) shim::on_grid(address)

#define GECO_DYNAMIC_SHARED(type, name) type& name = *static_cast<type*>(shim::dynamic_shared())

#define GECO_LAUNCH_HERE(kernel, blocks, shared_size, stream, ...) \
  shim::launch(kernel, blocks, ::geco::cuda::kThreads, shared_size, __VA_ARGS__)

#endif

#define GECO_LAUNCH(kernel, ...)                                                                  \
  do {                                                                                            \
    static_assert(::geco::cuda::kParametersFit<decltype(kernel)>, "more than 4 KiB of " #kernel); \
    GECO_LAUNCH_HERE(kernel, __VA_ARGS__);                                                        \
  } while (false)

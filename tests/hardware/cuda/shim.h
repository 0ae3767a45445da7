// Runs a .cu kernel as C++: one fiber per CUDA thread, all on one thread of the host, several blocks in flight.
//
// Built with -fsanitize=thread, ThreadSanitizer sees the fibers as threads and switches between them as no ordering at
// all. What orders memory is what orders it on the device: the start and the end of a launch, __syncthreads, and a
// device-wide atomic with a __threadfence on both sides. A kernel that lacks one of them is reported.
//
// shim::Faults leaves out the n-th barrier or fence of every thread, to prove that.
#pragma once

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#define SHIM_TSAN 1
extern "C" {
void __tsan_acquire(void*);
void __tsan_release(void*);
void* __tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void*);
void __tsan_switch_to_fiber(void*, unsigned);
void* __tsan_get_current_fiber();
}
#else
#define SHIM_TSAN 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(start, size)
#endif

#define SHIM_UNSEEN __attribute__((no_sanitize("thread"), noinline))  // by ThreadSanitizer

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

namespace shim {

// A stack, on its top what a function keeps for its caller. swapcontext would call the system twice at every barrier of
// every thread, for the mask of signals: most of the time of a kernel.
#if defined(__x86_64__)
struct Fiber {
  void* top = nullptr;
};

// Keeps the top of this stack in *from, goes on with the other.
extern "C" void shim_switch_stack(void** from, void* to);
asm(R"(
  .pushsection .text
  .weak shim_switch_stack
  .type shim_switch_stack, @function
shim_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size shim_switch_stack, . - shim_switch_stack
  .popsection
)");

inline void switch_fiber(Fiber& from, Fiber& to) { shim_switch_stack(&from.top, to.top); }

inline void make_fiber(Fiber& fiber, char* stack, std::size_t size, void (*entry)()) {
  void** top = reinterpret_cast<void**>(reinterpret_cast<std::uintptr_t>(stack + size) & ~std::uintptr_t{15});
  *--top = nullptr;  // where the entry would return to; it never does
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;  // registers
  fiber.top = top;
}
#else
using Fiber = ucontext_t;

inline void switch_fiber(Fiber& from, Fiber& to) { swapcontext(&from, &to); }

inline void make_fiber(Fiber& fiber, char* stack, std::size_t size, void (*entry)()) {
  getcontext(&fiber);
  fiber.uc_stack.ss_sp = stack;
  fiber.uc_stack.ss_size = size;
  makecontext(&fiber, entry, 0);
}
#endif

// What the tests choose.
struct Settings {
  int blocks_in_flight = 1 << 20;
  int multiprocessors = 2;
  int l2_bytes = 1 << 14;
  int shared_bytes = 228 << 10, shared_bytes_of_block = 227 << 10;
  int drop_barrier = 0, drop_fence = 0;  // which one, counted from 1 in each thread; 0: none
};
inline Settings settings;
inline long launches = 0;
inline long loaded_bytes = 0, stored_bytes = 0;  // of global memory, by the kernels

SHIM_UNSEEN inline void count_bytes(long& count, long bytes) { count += bytes; }

constexpr std::size_t kStack = 1 << 17;

// The threads that wait for each other: a block or a warp.
struct Group {
  int size = 0, arrived = 0;
  unsigned phase = 0;
  alignas(8) char order[16] = {};       // for ThreadSanitizer, one tag for each parity of the phase
  std::uint64_t exchanged[2][32] = {};  // by the parity of the phase: nobody writes where others still read
};

struct Index {
  unsigned x;
};

struct Thread {
  Index thread, block, blocks;
  int lane = 0;
  Group* of_block = nullptr;
  Group* of_warp = nullptr;
  void* shared = nullptr;
  unsigned* atomic = nullptr;  // the last one this thread changed
  bool fenced = false;         // since then
  bool done = false;
  int barriers = 0, fences = 0;
  Fiber place;
  void* fiber = nullptr;
};

inline Thread* running;
inline Fiber host;
inline void* host_fiber;
inline char launch_order[16];
inline const std::function<void()>* body;
inline std::vector<std::unique_ptr<char[]>> stacks;  // kept from launch to launch

SHIM_UNSEEN inline Thread* self() { return running; }
inline void* dynamic_shared() { return self()->shared; }

SHIM_UNSEEN inline void yield() {
#if SHIM_TSAN
  __tsan_switch_to_fiber(host_fiber, 1);  // 1: orders nothing
#endif
  switch_fiber(self()->place, host);
}

SHIM_UNSEEN inline void wait(Group& group) {
  const unsigned phase = group.phase;
  if (++group.arrived >= group.size) {
    group.arrived = 0;
    ++group.phase;
    return;
  }
  while (group.phase == phase) yield();
}

// A thread that has returned is waited for no longer.
SHIM_UNSEEN inline void leave(Group& group) {
  --group.size;
  if (group.size > 0 && group.arrived >= group.size) {
    group.arrived = 0;
    ++group.phase;
  }
}

SHIM_UNSEEN inline void barrier(Group& group) {
#if SHIM_TSAN
  char* tag = &group.order[(group.phase & 1) * 8];
  __tsan_release(tag);
  wait(group);
  __tsan_acquire(tag);
#else
  wait(group);
#endif
}

// Values pass between lanes; memory is not ordered by it.
template <class T>
SHIM_UNSEEN T exchange(T value, int source) {
  static_assert(sizeof(T) <= 8);
  Group& warp = *self()->of_warp;
  std::uint64_t (&all)[32] = warp.exchanged[warp.phase & 1];
  T result;
  __builtin_memcpy(&all[self()->lane], &value, sizeof(T));
  wait(warp);
  __builtin_memcpy(&result, &all[source], sizeof(T));
  return result;
}

SHIM_UNSEEN inline void run_thread() {
#if SHIM_TSAN
  __tsan_acquire(&launch_order[0]);
  (*body)();
  __tsan_release(&launch_order[8]);
#else
  (*body)();
#endif
  self()->done = true;
  leave(*self()->of_warp);
  leave(*self()->of_block);
  yield();
}

SHIM_UNSEEN inline void resume(Thread& thread) {
  running = &thread;
#if SHIM_TSAN
  __tsan_switch_to_fiber(thread.fiber, 1);
#endif
  switch_fiber(host, thread.place);
}

inline void run_blocks(unsigned first, unsigned count, unsigned blocks, int threads, std::size_t shared_size) {
  const int warps = (threads + 31) / 32;
  std::vector<Group> of_blocks(count), of_warps(count * static_cast<unsigned>(warps));
  std::vector<std::unique_ptr<std::max_align_t[]>> shared(count);
  std::vector<Thread> all(count * static_cast<unsigned>(threads));
  while (stacks.size() < all.size()) stacks.emplace_back(new char[kStack]);
  for (unsigned b = 0; b < count; ++b) {
    of_blocks[b].size = threads;
    const std::size_t units = shared_size / sizeof(std::max_align_t) + 1;
    shared[b].reset(new std::max_align_t[units]);
    std::memset(static_cast<void*>(shared[b].get()), 0xA5, units * sizeof(std::max_align_t));  // as good as garbage
    for (int t = 0; t < threads; ++t) {
      Thread& thread = all[b * static_cast<unsigned>(threads) + static_cast<unsigned>(t)];
      thread.thread = {static_cast<unsigned>(t)};
      thread.block = {first + b};
      thread.blocks = {blocks};
      thread.lane = t % 32;
      thread.of_block = &of_blocks[b];
      thread.of_warp = &of_warps[b * static_cast<unsigned>(warps) + static_cast<unsigned>(t / 32)];
      ++thread.of_warp->size;
      thread.shared = shared[b].get();
      char* stack = stacks[static_cast<std::size_t>(&thread - all.data())].get();
      ASAN_UNPOISON_MEMORY_REGION(stack, kStack);  // of the fiber before
      make_fiber(thread.place, stack, kStack, run_thread);
#if SHIM_TSAN
      thread.fiber = __tsan_create_fiber(0);
#endif
    }
  }
#if SHIM_TSAN
  __tsan_release(&launch_order[0]);
#endif
  for (bool left = true; left;) {
    left = false;
    for (Thread& thread : all) {
      if (thread.done) continue;
      resume(thread);
      left = true;
    }
  }
#if SHIM_TSAN
  __tsan_acquire(&launch_order[8]);
  for (Thread& thread : all) __tsan_destroy_fiber(thread.fiber);
#endif
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), unsigned blocks, int threads, std::size_t shared_size,
            const Arguments&... arguments) {
  ++launches;
#if defined(SHIM_LEAVES_OUT_KERNELS)  // what is left is the work of the host (bench/host_side.py)
  return;
#endif
  const std::tuple<Parameters...> parameters{static_cast<Parameters>(arguments)...};
  const std::function<void()> call = [&] { std::apply(kernel, parameters); };
  body = &call;
#if SHIM_TSAN
  host_fiber = __tsan_get_current_fiber();
#endif
  const unsigned wave = static_cast<unsigned>(settings.blocks_in_flight);
  for (unsigned first = 0; first < blocks; first += wave) {
    run_blocks(first, std::min(wave, blocks - first), blocks, threads, shared_size);
  }
}

}  // namespace shim

#define threadIdx (shim::self()->thread)
#define blockIdx (shim::self()->block)
#define gridDim (shim::self()->blocks)

inline void __syncthreads() {
  if (++shim::self()->barriers != shim::settings.drop_barrier) shim::barrier(*shim::self()->of_block);
}

template <class T>
T __shfl_sync(unsigned, T value, int source) {
  return shim::exchange(value, source);
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return shim::exchange(value, shim::self()->lane ^ mask);
}

inline void __threadfence() {
  shim::Thread& thread = *shim::self();
  if (++thread.fences == shim::settings.drop_fence) return;
  thread.fenced = true;
#if SHIM_TSAN
  if (thread.atomic) __tsan_acquire(thread.atomic);
#endif
}

// An atomic alone orders nothing else; a fence before it publishes, a fence after it receives.
SHIM_UNSEEN inline unsigned atomicInc(unsigned* address, unsigned last) {
  shim::Thread& thread = *shim::self();
#if SHIM_TSAN
  if (thread.fenced) __tsan_release(address);
#endif
  const unsigned old = *address;
  *address = old >= last ? 0 : old + 1;
  thread.fenced = false;
  thread.atomic = address;
  return old;
}

namespace shim {

// The device stops at an access off its own grid; most processors do not.
template <class T>
T* on_grid(T* address) {
  if (reinterpret_cast<std::uintptr_t>(address) % alignof(T) == 0) return address;
  std::printf("an access of %zu bytes to the address %p\n", sizeof(T), static_cast<const void*>(address));
  std::abort();
}

}  // namespace shim

template <class T>
T __ldg(const T* from) {
  return *shim::on_grid(from);
}
template <class T>
T __ldcs(const T* from) {
  return *shim::on_grid(from);
}
template <class T>
T __ldcg(const T* from) {
  return *shim::on_grid(from);
}
template <class T>
void __stcs(T* to, T value) {
  *shim::on_grid(to) = value;
}

using std::max;
using std::min;

namespace shim {

// The driver's side: which devices have a context, which one of them is current, and what it refuses.
using Context = int*;  // the number of a device; null: none
inline int numbers_of_devices[] = {0, 1};
inline Context context = &numbers_of_devices[0];
inline bool has_context[] = {true, false};
inline bool is_busy[] = {false, false};
inline int last_error = 0;

}  // namespace shim

enum cudaError_t { cudaSuccess, cudaErrorDevicesUnavailable };
enum cudaDeviceAttr {
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrL2CacheSize,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor,
  cudaDevAttrMaxSharedMemoryPerBlockOptin
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize, cudaFuncAttributePreferredSharedMemoryCarveout };
constexpr int cudaSharedmemCarveoutMaxShared = 100;
inline const char* cudaGetErrorString(cudaError_t) { return "none"; }
inline cudaError_t cudaGetLastError() { return static_cast<cudaError_t>(std::exchange(shim::last_error, 0)); }
inline cudaError_t cudaSetDevice(int device) {
  if (shim::is_busy[device]) return static_cast<cudaError_t>(shim::last_error = cudaErrorDevicesUnavailable);
  shim::has_context[device] = true;
  shim::context = &shim::numbers_of_devices[device];
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) { return *device = shim::context ? *shim::context : 0, cudaSuccess; }
inline cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
using cudaStream_t = void*;
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone };
inline cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}
struct cudaFuncAttributes {};
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel) {
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int) {
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMultiProcessorCount: *value = shim::settings.multiprocessors; break;
    case cudaDevAttrL2CacheSize: *value = shim::settings.l2_bytes; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = shim::settings.shared_bytes; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = shim::settings.shared_bytes_of_block; break;
  }
  return cudaSuccess;
}

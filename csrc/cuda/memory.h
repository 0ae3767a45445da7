// Vectors of numbers to and from device memory, and what a stored number means.
#pragma once

#include <cstdint>

#include "contract.h"
#include "cuda/launch.h"
#include "math/half.h"
#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace geco::cuda {

// What numbers of a type are computed in.
template <class T>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};

template <class T, int n>
struct Vector {
  T values[n];
};

template <int bytes>
struct WordsOf;
template <>
struct WordsOf<2> {
  using type = unsigned short;
};
template <>
struct WordsOf<4> {
  using type = unsigned;
};
template <>
struct WordsOf<8> {
  using type = uint2;
};
template <>
struct WordsOf<16> {
  using type = uint4;
};
template <class T, int n>
using Words = typename WordsOf<static_cast<int>(sizeof(T)) * n>::type;

template <class To, class From>
__device__ __forceinline__ To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

// Read only while the kernel runs, and likely wanted again by others.
template <class T, int n>
__device__ __forceinline__ Vector<T, n> load(const T* from) {
  GECO_LOADED(sizeof(T) * n);
  return bit_cast<Vector<T, n>>(__ldg(reinterpret_cast<const Words<T, n>*>(from)));
}

// Read for the last time: first to leave the caches. Of memory that the kernel may write, too.
template <class T, int n>
__device__ __forceinline__ Vector<T, n> load_last(const T* from) {
  GECO_LOADED(sizeof(T) * n);
  return bit_cast<Vector<T, n>>(__ldcs(reinterpret_cast<const Words<T, n>*>(from)));
}

// Whether what is loaded will be loaded again while the kernel runs. The L2 cache lets go last of what will be, and
// first of what will not: pixels of a window are loaded twice, with all that the other warps load in between, which is
// almost as much as the cache holds.
enum class Reuse { kUnsaid, kSoon, kNever };

template <Reuse reuse, class T, int n>
__device__ __forceinline__ Vector<T, n> load(const T* from) {
#if defined(__CUDA_ARCH__)
  if constexpr (reuse != Reuse::kUnsaid) {
    std::uint64_t policy;
    if constexpr (reuse == Reuse::kSoon) {
      asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
    } else {
      asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    }
    Words<T, n> words;
    if constexpr (sizeof words == 16) {
      asm("ld.global.nc.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
          : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
          : "l"(from), "l"(policy));
    } else {
      static_assert(sizeof words == 8);
      asm("ld.global.nc.L2::cache_hint.v2.u32 {%0, %1}, [%2], %3;"
          : "=r"(words.x), "=r"(words.y)
          : "l"(from), "l"(policy));
    }
    return bit_cast<Vector<T, n>>(words);
  }
#endif
  return load<T, n>(from);
}

// Asks for a line of memory that will be loaded a while later.
__device__ __forceinline__ void fetch_to_l2([[maybe_unused]] const void* address) {
#if defined(__CUDA_ARCH__)
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
#endif
}

// `stream`: larger than the caches can keep until it is read.
template <class T, int n>
__device__ __forceinline__ void store(T* to, const Vector<T, n>& vector, bool stream) {
  GECO_STORED(sizeof(T) * n);
  auto* words = reinterpret_cast<Words<T, n>*>(to);
  const auto value = bit_cast<Words<T, n>>(vector);
  if (stream) {
    __stcs(words, value);
  } else {
    *GECO_ON_GRID(words) = value;
  }
}

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ double widen(double value) { return value; }
__device__ __forceinline__ float widen(BFloat16 value) { return to_float(value); }
__device__ __forceinline__ float widen(Half value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#else
  return to_float(value);
#endif
}

// Rounded to nearest, ties to even.
template <class T>
__device__ __forceinline__ T round_to(float value) {
  return value;
}
template <>
__device__ __forceinline__ Half round_to<Half>(float value) {
#if defined(__CUDA_ARCH__)
  return {__half_as_ushort(__float2half_rn(value))};
#else
  return to_half(value);
#endif
}
template <>
__device__ __forceinline__ BFloat16 round_to<BFloat16>(float value) {
#if defined(__CUDA_ARCH__)
  return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#else
  return to_bfloat16(value);
#endif
}

template <class T>
__device__ __forceinline__ T element(const void* data, std::int64_t offset) {
  GECO_LOADED(sizeof(T));
  return static_cast<const T*>(data)[offset];
}

// One number of a type known at run time only.
template <class Compute>
__device__ __forceinline__ Compute read_element(const void* data, DataType type, std::int64_t offset) {
  switch (type) {
    case DataType::kFloat32: return static_cast<Compute>(element<float>(data, offset));
    case DataType::kFloat64: return static_cast<Compute>(element<double>(data, offset));
    case DataType::kFloat16: return static_cast<Compute>(widen(element<Half>(data, offset)));
    case DataType::kBFloat16: return static_cast<Compute>(widen(element<BFloat16>(data, offset)));
    default: return static_cast<Compute>(element<std::int64_t>(data, offset));
  }
}

// Gradient buffers are float64 for float64 predictions and float32 for all others.
__device__ __forceinline__ void write_gradient(void* data, DataType of_prediction, std::int64_t offset, double value) {
  GECO_STORED(of_prediction == DataType::kFloat64 ? 8 : 4);
  if (of_prediction == DataType::kFloat64) {
    static_cast<double*>(data)[offset] = value;
  } else {
    static_cast<float*>(data)[offset] = static_cast<float>(value);
  }
}

}  // namespace geco::cuda

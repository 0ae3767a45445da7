// Numbers of any float type to and from vectors of the type they are computed in, whole vectors or the first numbers of
// one. Internal linkage as in vectors.inl.
#pragma once

#include <type_traits>

#include "cpu/isa/vectors.inl"

namespace geco::cpu {
namespace {

// Half types are computed in float32.
template <class T>
using Computed = std::conditional_t<std::is_same_v<T, double>, double, float>;

// How much of a vector is read or written.
struct Whole {};
struct First {
  std::int64_t count;
};

GECO_HD void store(BFloat16* to, Floats values) {
  Words words;
  __builtin_memcpy(&words, &values, sizeof values);
  // Rounding to nearest, ties to even; NaN keeps the upper half of its digits, one of which is set.
  const Words rounded = values == values ? words + 0x7fffu + ((words >> 16) & 1u) : words | 0x400000u;
  const Shorts halves = __builtin_convertvector(rounded >> 16, Shorts);
  __builtin_memcpy(to, &halves, sizeof halves);
}

GECO_HD void store(Half* to, Floats values) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_maskz_cvtps_ph(0xffff, (__m512)values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__AVX2__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm256_cvtps_ph((__m256)values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  for (int i = 0; i < kLanes; ++i) to[i] = to_half(values[i]);
#endif
}

template <class T>
GECO_HD Vector<Computed<T>> read(const T* from, Whole) {
  return load(from);
}

template <class T>
GECO_HD void write(T* to, Vector<Computed<T>> values, Whole) {
  store(to, values);
}

template <class T>
GECO_HD Vector<Computed<T>> read(const T* from, First part) {
  if constexpr (std::is_same_v<T, Computed<T>>) {
    return load_some(from, part.count);
  } else {
    T numbers[kLanesOf<Computed<T>>] = {};
    for (std::int64_t i = 0; i < part.count; ++i) numbers[i] = from[i];
    return load(numbers);
  }
}

template <class T>
GECO_HD void write(T* to, Vector<Computed<T>> values, First part) {
  if constexpr (std::is_same_v<T, Computed<T>>) {
    store_some(to, values, part.count);
  } else {
    T numbers[kLanesOf<Computed<T>>];
    store(numbers, values);
    for (std::int64_t i = 0; i < part.count; ++i) to[i] = numbers[i];
  }
}

// Zeros where there is no tensor.
template <class T, class Part>
GECO_HD Vector<Computed<T>> read_or_zero(const T* base, std::int64_t at, Part part) {
  return base == nullptr ? Vector<Computed<T>>{} : read(base + at, part);
}

}  // namespace
}  // namespace geco::cpu

// Vectors of the widest kind that the file including this is compiled for. All of it has internal linkage: a function
// the linker could merge with another file's copy would carry wide instructions to old processors.
#pragma once

#include <cmath>
#include <cstdint>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "math/half.h"

namespace geco::cpu {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class Real>
constexpr int kLanesOf = kVectorBytes / static_cast<int>(sizeof(Real));
constexpr int kLanes = kLanesOf<float>;

template <class Real>
struct VectorOf;
template <>
struct VectorOf<float> {
  using type = float __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
  using type = double __attribute__((vector_size(kVectorBytes)));
};
template <class Real>
using Vector = typename VectorOf<Real>::type;

using Floats = Vector<float>;
using Doubles = Vector<double>;
template <class Real>
using Mask = decltype(Vector<Real>{} < Vector<Real>{});  // what a comparison gives: all bits of a number, or none

using Words = std::uint32_t __attribute__((vector_size(kVectorBytes)));
using Shorts = std::uint16_t __attribute__((vector_size(kVectorBytes / 2)));

// A vector anywhere in memory. Not __builtin_memcpy: GCC takes that through the stack where vectors have 32 bytes.
template <class Real>
struct AnywhereOf;
template <>
struct AnywhereOf<float> {
  using type = float __attribute__((vector_size(kVectorBytes), aligned(alignof(float)), may_alias));
};
template <>
struct AnywhereOf<double> {
  using type = double __attribute__((vector_size(kVectorBytes), aligned(alignof(double)), may_alias));
};

GECO_HD Floats load(const float* from) { return *reinterpret_cast<const AnywhereOf<float>::type*>(from); }
GECO_HD Doubles load(const double* from) { return *reinterpret_cast<const AnywhereOf<double>::type*>(from); }

GECO_HD Floats load(const BFloat16* from) {
  Shorts halves;
  __builtin_memcpy(&halves, from, sizeof halves);
  const Words words = __builtin_convertvector(halves, Words) << 16;
  Floats values;
  __builtin_memcpy(&values, &words, sizeof values);
  return values;
}

GECO_HD Floats load(const Half* from) {
#if defined(__AVX512F__)
  // The masked form: GCC 12 warns about its own header's uninitialised operand in the plain one.
  return (Floats)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__AVX2__)
  return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  Floats values;
  for (int i = 0; i < kLanes; ++i) values[i] = to_float(from[i]);
  return values;
#endif
}

template <class Real>
GECO_HD void store(Real* to, Vector<Real> values) {
  *reinterpret_cast<typename AnywhereOf<Real>::type*>(to) = values;
}

#if defined(__AVX2__) && !defined(__AVX512F__)
GECO_HD __m256i first_lanes(std::int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

// The first `count` numbers, zeros behind them.
GECO_HD Floats first(Floats values, std::int64_t count) {
#if defined(__AVX512F__)
  return (Floats)_mm512_maskz_mov_ps(static_cast<__mmask16>((1u << count) - 1), (__m512)values);
#elif defined(__AVX2__)
  return (Floats)_mm256_and_ps((__m256)values, (__m256)first_lanes(count));
#else
  for (int i = 0; i < kLanesOf<float>; ++i) values[i] = i < count ? values[i] : 0.0f;
  return values;
#endif
}

GECO_HD Doubles first(Doubles values, std::int64_t count) {
  for (int i = 0; i < kLanesOf<double>; ++i) values[i] = i < count ? values[i] : 0.0;
  return values;
}

// The same from memory, and back; what is beyond them is not touched. Masks, because a vector that is read just after
// a part of it was written waits for the cache.
template <class Real>
GECO_HD Vector<Real> load_some(const Real* from, std::int64_t count) {
  Vector<Real> values = {};
  __builtin_memcpy(&values, from, static_cast<std::size_t>(count) * sizeof(Real));
  return values;
}

template <class Real>
GECO_HD void store_some(Real* to, Vector<Real> values, std::int64_t count) {
  __builtin_memcpy(to, &values, static_cast<std::size_t>(count) * sizeof(Real));
}

#if defined(__AVX512F__)
template <>
GECO_HD Doubles load_some<double>(const double* from, std::int64_t count) {
  return (Doubles)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), from);
}

template <>
GECO_HD void store_some<double>(double* to, Doubles values, std::int64_t count) {
  _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << count) - 1), (__m512d)values);
}

template <>
GECO_HD Floats load_some<float>(const float* from, std::int64_t count) {
  return (Floats)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
}

template <>
GECO_HD void store_some<float>(float* to, Floats values, std::int64_t count) {
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), (__m512)values);
}
#elif defined(__AVX2__)
GECO_HD __m256i first_double_lanes(std::int64_t count) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}

template <>
GECO_HD Doubles load_some<double>(const double* from, std::int64_t count) {
  return (Doubles)_mm256_maskload_pd(from, first_double_lanes(count));
}

template <>
GECO_HD void store_some<double>(double* to, Doubles values, std::int64_t count) {
  _mm256_maskstore_pd(to, first_double_lanes(count), (__m256d)values);
}

template <>
GECO_HD Floats load_some<float>(const float* from, std::int64_t count) {
  return (Floats)_mm256_maskload_ps(from, first_lanes(count));
}

template <>
GECO_HD void store_some<float>(float* to, Floats values, std::int64_t count) {
  _mm256_maskstore_ps(to, first_lanes(count), (__m256)values);
}
#endif

template <class M>
GECO_HD bool any(M mask) {
  bool found = false;
  for (std::size_t i = 0; i < sizeof mask / sizeof mask[0]; ++i) found |= mask[i] != 0;
  return found;
}

// Past the caches; `to` is aligned to a vector.
GECO_HD void stream(float* to, Floats values) {
#if defined(__AVX512F__)
  _mm512_stream_ps(to, (__m512)values);
#elif defined(__AVX2__)
  _mm256_stream_ps(to, (__m256)values);
#else
  store(to, values);
#endif
}

// Added up in halves, in double.
GECO_HD double sum(Doubles values) {
#if defined(__AVX512F__)
  using Half4 = double __attribute__((vector_size(32)));
  const Half4 folded =
      __builtin_shufflevector(values, values, 0, 1, 2, 3) + __builtin_shufflevector(values, values, 4, 5, 6, 7);
#else
  const Doubles folded = values;
#endif
  double total = 0;
  for (std::size_t i = 0; i < sizeof folded / sizeof(double); ++i) total += folded[i];
  return total;
}

// Half as many numbers of the double precision.
GECO_HD Doubles folded(Doubles values) { return values; }
GECO_HD Doubles folded(Floats values) {
  using Lower = float __attribute__((vector_size(kVectorBytes / 2)));
  Lower halves[2];
  __builtin_memcpy(halves, &values, sizeof values);
  return __builtin_convertvector(halves[0], Doubles) + __builtin_convertvector(halves[1], Doubles);
}

GECO_HD double sum(Floats values) { return sum(folded(values)); }

// The numbers of two neighbouring vectors, from the n-th on.
template <int n>
GECO_HD Floats shifted(Floats first, Floats second) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(first, second, n, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6, n + 7, n + 8, n + 9,
                                 n + 10, n + 11, n + 12, n + 13, n + 14, n + 15);
#elif defined(__AVX2__)
  return __builtin_shufflevector(first, second, n, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6, n + 7);
#else
  return __builtin_shufflevector(first, second, n, n + 1, n + 2, n + 3);
#endif
}

template <int n>
GECO_HD Doubles shifted(Doubles first, Doubles second) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(first, second, n, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6, n + 7);
#elif defined(__AVX2__)
  return __builtin_shufflevector(first, second, n, n + 1, n + 2, n + 3);
#else
  return __builtin_shufflevector(first, second, n, n + 1);
#endif
}

// What math/patch.h asks of a vector; NaN stays NaN.
struct VectorMath {
  static GECO_HD Floats square_root(Floats values) {
#if defined(__AVX512F__)
    return (Floats)_mm512_maskz_sqrt_ps(0xffff, (__m512)values);
#elif defined(__AVX2__)
    return (Floats)_mm256_sqrt_ps((__m256)values);
#elif defined(__SSE2__)
    return (Floats)_mm_sqrt_ps((__m128)values);
#else
    for (int i = 0; i < kLanes; ++i) values[i] = std::sqrt(values[i]);
    return values;
#endif
  }

  static GECO_HD Doubles square_root(Doubles values) {
#if defined(__AVX512F__)
    return (Doubles)_mm512_maskz_sqrt_pd(0xff, (__m512d)values);
#elif defined(__AVX2__)
    return (Doubles)_mm256_sqrt_pd((__m256d)values);
#elif defined(__SSE2__)
    return (Doubles)_mm_sqrt_pd((__m128d)values);
#else
    for (int i = 0; i < kLanesOf<double>; ++i) values[i] = std::sqrt(values[i]);
    return values;
#endif
  }

  static GECO_HD double square_root(double value) { return __builtin_sqrt(value); }

  static GECO_HD Doubles inverse_sqrt(Doubles values) { return 1.0 / square_root(values); }

  static GECO_HD Floats inverse_sqrt(Floats values) {
#if defined(__AVX512F__)
    // Good to 14 bits, and to all 24 after one step of Newton.
    const Floats guess = (Floats)_mm512_maskz_rsqrt14_ps(0xffff, (__m512)values);
    return guess + guess * 0.5f * (1.0f - values * guess * guess);
#elif defined(__AVX2__)
    // Good to 12 bits, and to 23 after one step of Newton.
    const Floats guess = (Floats)_mm256_rsqrt_ps((__m256)values);
    return guess + guess * 0.5f * (1.0f - values * guess * guess);
#else
    return 1.0f / square_root(values);
#endif
  }

  template <class V>
  static GECO_HD V quotient(V a, V b) {
    return a / b;
  }
  template <class V>
  static GECO_HD V unless_zero(V condition, V values) {
    return condition == 0 ? V{} : values;
  }
  template <class V, class Real>
  static GECO_HD V min(V values, Real limit) {
    return values > limit ? limit + V{} : values;
  }
  template <class V, class Real>
  static GECO_HD V max(V values, Real limit) {
    return values < limit ? limit + V{} : values;
  }
};

}  // namespace
}  // namespace geco::cpu

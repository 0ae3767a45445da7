// Squared errors and scaled gradients. Internal linkage as in vectors.inl.
#pragma once

#include <cstdint>

#include "cpu/isa/kernels.h"
#include "cpu/isa/vectors.inl"

namespace geco::cpu {
namespace {

template <bool streams>
GECO_HD void store_gradient(float* to, Floats values) {
  if constexpr (streams) {
    stream(to, values);
  } else {
    store<float>(to, values);
  }
}

// Float32 arithmetic on unit strides. Four sums of at most kRounds squares each, then double: the rounding of a
// sum of any length stays that of a few dozen additions.
template <class P, class T, bool with_gradient, bool streams>
double dense_squared_error(const P* prediction, const T* target, float* gradient, std::int64_t length,
                           float coefficient) {
  constexpr int kUnroll = 4, kRounds = 16;
  constexpr std::int64_t kBlock = kLanes * kUnroll * kRounds;
  double total = 0;
  std::int64_t i = 0;
  for (; i + kBlock <= length; i += kBlock) {
    Floats sums[kUnroll] = {};
    for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) {
        const std::int64_t at = i + (round * kUnroll + u) * kLanes;
        const Floats difference = load(prediction + at) - load(target + at);
        if constexpr (with_gradient) store_gradient<streams>(gradient + at, difference * coefficient);
        sums[u] += difference * difference;
      }
    }
    total += sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
  Floats rest = {};
  for (; i + kLanes <= length; i += kLanes) {
    const Floats difference = load(prediction + i) - load(target + i);
    if constexpr (with_gradient) store_gradient<streams>(gradient + i, difference * coefficient);
    rest += difference * difference;
  }
  total += sum(rest);
  for (; i < length; ++i) {
    const float difference = to_float(prediction[i]) - to_float(target[i]);
    if constexpr (with_gradient) gradient[i] = difference * coefficient;
    total += static_cast<double>(difference) * static_cast<double>(difference);
  }
  return total;
}

// Any strides, and float64 arithmetic.
template <class P, class T, class G, class Compute>
double strided_squared_error(const InnerLoop& loop, Compute coefficient) {
  const P* prediction = static_cast<const P*>(loop.prediction);
  const T* target = static_cast<const T*>(loop.target);
  G* gradient = static_cast<G*>(loop.gradient);
  double total = 0;
  for (std::int64_t i = 0; i < loop.length; ++i) {
    const Compute difference = static_cast<Compute>(to_float(prediction[i * loop.prediction_stride])) -
                               static_cast<Compute>(to_float(target[i * loop.target_stride]));
    if (gradient) gradient[i * loop.gradient_stride] = static_cast<G>(difference * coefficient);
    total += static_cast<double>(difference) * static_cast<double>(difference);
  }
  return total;
}

template <class A, class B>
constexpr bool kSame = false;
template <class A>
constexpr bool kSame<A, A> = true;

template <class P, class T>
double squared_error(const InnerLoop& loop, double coefficient, bool streams) {
  if constexpr (kSame<P, double>) {
    return strided_squared_error<P, T, double, double>(loop, coefficient);
  } else if constexpr (kSame<T, double>) {
    return strided_squared_error<P, T, float, double>(loop, coefficient);
  } else {
    const bool dense = loop.prediction_stride == 1 && loop.target_stride == 1 &&
                       (loop.gradient == nullptr || loop.gradient_stride == 1);
    const float factor = static_cast<float>(coefficient);
    if (!dense) return strided_squared_error<P, T, float, float>(loop, factor);
    const P* prediction = static_cast<const P*>(loop.prediction);
    const T* target = static_cast<const T*>(loop.target);
    float* gradient = static_cast<float*>(loop.gradient);
    if (gradient == nullptr) {
      return dense_squared_error<P, T, false, false>(prediction, target, gradient, loop.length, factor);
    }
    const bool aligned = reinterpret_cast<std::uintptr_t>(gradient) % sizeof(Floats) == 0;
    if (streams && aligned) {
      const double sum = dense_squared_error<P, T, true, true>(prediction, target, gradient, loop.length, factor);
#if defined(__AVX2__)
      _mm_sfence();  // streaming stores are not ordered with what tells other threads that they are done
#endif
      return sum;
    }
    return dense_squared_error<P, T, true, false>(prediction, target, gradient, loop.length, factor);
  }
}

GECO_HD void round_to(float& out, float value) { out = value; }
GECO_HD void round_to(double& out, float value) { out = value; }
GECO_HD void round_to(Half& out, float value) { out = to_half(value); }
GECO_HD void round_to(BFloat16& out, float value) { out = to_bfloat16(value); }

template <class Out>
void scale(const float* in, void* out, std::int64_t length, float factor) {
  Out* values = static_cast<Out*>(out);
  std::int64_t i = 0;
#if defined(__AVX512F__)
  if constexpr (kSame<Out, Half>) {
    for (; i + 16 <= length; i += 16) {
      const __m512 scaled = (__m512)(load(in + i) * factor);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + i),
                          _mm512_maskz_cvtps_ph(0xffff, scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
  }
#elif defined(__AVX2__)
  if constexpr (kSame<Out, Half>) {
    for (; i + 8 <= length; i += 8) {
      const __m256 scaled = (__m256)(load(in + i) * factor);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(values + i),
                       _mm256_cvtps_ph(scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
  }
#endif
  for (; i < length; ++i) round_to(values[i], in[i] * factor);
}

}  // namespace

}  // namespace geco::cpu

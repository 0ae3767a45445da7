// Measures of differences, and scaled gradients. Internal linkage as in vectors.inl.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/isa/kernels.h"
#include "cpu/isa/vectors.inl"
#include "math/elementwise.h"

namespace geco::cpu {
namespace {

enum class Gradient { kNone, kStored, kStreamed, kAdded };

template <Gradient gradient>
GECO_HD void put_gradient(float* to, Floats values) {
  if constexpr (gradient == Gradient::kStored) store<float>(to, values);
  if constexpr (gradient == Gradient::kStreamed) stream(to, values);
  if constexpr (gradient == Gradient::kAdded) store<float>(to, load(to) + values);
}

template <class Measure>
GECO_HD Measured<Floats> measured(Floats difference, float eps) {
  return Measure::template of<VectorMath>(difference, eps);
}

template <class Measure>
GECO_HD Measured<double> measured(double difference, double eps) {
  return Measure::template of<VectorMath>(difference, eps);
}

// A weight of zero stands before all that the difference may be.
template <class V>
GECO_HD Measured<V> weighed(const Measured<V>& found, V weights) {
  return {VectorMath::unless_zero(weights, found.value * weights),
          VectorMath::unless_zero(weights, found.direction * weights)};
}

// Float32 arithmetic on unit strides. Four sums of at most kRounds values each, then double: the rounding of a
// sum of any length stays that of a few dozen additions.
template <class Measure, bool weighted, class P, class T, Gradient how>
double measure_dense(const P* prediction, const T* target, float* gradient, const float* weights, std::int64_t length,
                     double eps, float coefficient) {
  constexpr int kUnroll = 4, kRounds = 16;
  constexpr std::int64_t kBlock = kLanes * kUnroll * kRounds;
  const float eps_of_vectors = static_cast<float>(eps);
  const auto measured_at = [&](std::int64_t at) {
    const Measured<Floats> found = measured<Measure>(load(prediction + at) - load(target + at), eps_of_vectors);
    if constexpr (weighted) return weighed(found, load(weights + at));
    return found;
  };
  double total = 0;
  std::int64_t i = 0;
  for (; i + kBlock <= length; i += kBlock) {
    Floats sums[kUnroll] = {};
    for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) {
        const std::int64_t at = i + (round * kUnroll + u) * kLanes;
        const Measured<Floats> found = measured_at(at);
        put_gradient<how>(gradient + at, found.direction * coefficient);
        sums[u] += found.value;
      }
    }
    total += sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
  Floats rest = {};
  for (; i + kLanes <= length; i += kLanes) {
    const Measured<Floats> found = measured_at(i);
    put_gradient<how>(gradient + i, found.direction * coefficient);
    rest += found.value;
  }
  total += sum(rest);
  for (; i < length; ++i) {
    const float difference = to_float(prediction[i]) - to_float(target[i]);
    Measured<double> found = measured<Measure>(static_cast<double>(difference), eps);
    if constexpr (weighted) found = weighed(found, static_cast<double>(weights[i]));
    const float slope = static_cast<float>(found.direction) * coefficient;
    if constexpr (how == Gradient::kAdded) {
      gradient[i] += slope;
    } else if constexpr (how != Gradient::kNone) {
      gradient[i] = slope;
    }
    total += found.value;
  }
  return total;
}

// Any strides, and float64 arithmetic. `Compute` is also the type of weights.
template <class Measure, bool weighted, class P, class T, class G, class Compute>
double measure_strided(const InnerLoop& loop, double eps, Compute coefficient) {
  const P* prediction = static_cast<const P*>(loop.prediction);
  const T* target = static_cast<const T*>(loop.target);
  const Compute* weights = static_cast<const Compute*>(loop.weights);
  G* gradient = static_cast<G*>(loop.gradient);
  double total = 0;
  for (std::int64_t i = 0; i < loop.length; ++i) {
    const Compute difference = static_cast<Compute>(to_float(prediction[i * loop.prediction_stride])) -
                               static_cast<Compute>(to_float(target[i * loop.target_stride]));
    Measured<double> found = measured<Measure>(static_cast<double>(difference), eps);
    if constexpr (weighted) found = weighed(found, static_cast<double>(weights[i * loop.weights_stride]));
    if (gradient) {
      G& to = gradient[i * loop.gradient_stride];
      const Compute slope = static_cast<Compute>(found.direction) * coefficient;
      to = static_cast<G>(loop.adds ? static_cast<Compute>(to) + slope : slope);
    }
    total += found.value;
  }
  return total;
}

template <class A, class B>
constexpr bool kSame = false;
template <class A>
constexpr bool kSame<A, A> = true;

template <class Measure, bool weighted, class P, class T>
double measure(const InnerLoop& loop, double eps, double coefficient, bool streams) {
  if constexpr (kSame<P, double>) {
    return measure_strided<Measure, weighted, P, T, double, double>(loop, eps, coefficient);
  } else if constexpr (kSame<T, double>) {
    return measure_strided<Measure, weighted, P, T, float, double>(loop, eps, coefficient);
  } else {
    const bool dense = loop.prediction_stride == 1 && loop.target_stride == 1 &&
                       (loop.gradient == nullptr || loop.gradient_stride == 1) &&
                       (!weighted || loop.weights_stride == 1);
    const float factor = static_cast<float>(coefficient);
    if (!dense) return measure_strided<Measure, weighted, P, T, float, float>(loop, eps, factor);
    const P* prediction = static_cast<const P*>(loop.prediction);
    const T* target = static_cast<const T*>(loop.target);
    const float* weights = static_cast<const float*>(loop.weights);
    float* gradient = static_cast<float*>(loop.gradient);
    const auto run = [&](auto how) {
      return measure_dense<Measure, weighted, P, T, how()>(prediction, target, gradient, weights, loop.length, eps,
                                                           factor);
    };
    if (gradient == nullptr) return run(std::integral_constant<Gradient, Gradient::kNone>());
    if (loop.adds) return run(std::integral_constant<Gradient, Gradient::kAdded>());
    const bool aligned = reinterpret_cast<std::uintptr_t>(gradient) % sizeof(Floats) == 0;
    if (!streams || !aligned) return run(std::integral_constant<Gradient, Gradient::kStored>());
    const double sum = run(std::integral_constant<Gradient, Gradient::kStreamed>());
#if defined(__AVX2__)
    _mm_sfence();  // streaming stores are not ordered with what tells other threads that they are done
#endif
    return sum;
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

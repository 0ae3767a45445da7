// What math/activations.h asks of a vector. exp(x) is within 1.1 units in the last place, exp(x) - 1 within 2.2.
//
// Cody and Waite (1980): x = n ln 2 + r with |r| <= ln(2) / 2, exp(r) - 1 = r + r^2 P(r), and scaling by 2^n. P
// interpolates at the nodes of Chebyshev, which leaves less than 0.2 units. Internal linkage as in vectors.inl.
#pragma once

#include "cpu/isa/vectors.inl"
#include "math/activations.h"

namespace geco::cpu {
namespace {

template <class Real>
struct ExponentialConstants;

template <>
struct ExponentialConstants<float> {
  using Bits = Words;
  static constexpr float kLog2E = 0x1.715476p0f;
  // The upper half of ln 2 has so few digits that any n of them is exact.
  static constexpr float kLn2Upper = 0x1.63p-1f, kLn2Lower = -0x1.bd0106p-13f;
  // Below: zero. Above: infinity.
  static constexpr float kLowest = -104.0f, kHighest = 89.0f;
  static constexpr float kRounder = 0x1.8p23f;  // added to a number, it leaves no digits behind the point
  static constexpr float kZeroExponent = -127.0f;
  static constexpr int kMantissaBits = 23;
  static constexpr float kPolynomial[] = {0x1p-1f, 0x1.5554dcp-3f, 0x1.55551ap-5f, 0x1.120b9p-7f, 0x1.6d112cp-10f};
};

template <>
struct ExponentialConstants<double> {
  using Bits = std::uint64_t __attribute__((vector_size(kVectorBytes)));
  static constexpr double kLog2E = 0x1.71547652b82fep0;
  static constexpr double kLn2Upper = 0x1.62e42p-1, kLn2Lower = 0x1.fdf473de6af28p-22;
  static constexpr double kLowest = -746.0, kHighest = 710.0;
  static constexpr double kRounder = 0x1.8p52;
  static constexpr double kZeroExponent = -1023.0;
  static constexpr int kMantissaBits = 52;
  static constexpr double kPolynomial[] = {0x1.0000000000001p-1,  0x1.5555555555556p-3,  0x1.5555555553d67p-5,
                                           0x1.11111111109b4p-7,  0x1.6c16c1788a49bp-10, 0x1.a01a01a7c327ap-13,
                                           0x1.a019b9133a48ap-16, 0x1.71de0db21e27fp-19, 0x1.28917e2c43a66p-22,
                                           0x1.af38a0d2d9620p-26};
};

template <class R>
struct Elementary {
  using Real = R;
  using V = Vector<Real>;
  using Constants = ExponentialConstants<Real>;
  using Bits = typename Constants::Bits;

  static GECO_HD V exp(V x) {
    const Reduced reduced = reduce(x);
    return scaled(Real(1) + reduced.minus_one, reduced.exponent);
  }

  static GECO_HD Exponential<V> exponential(V x) {
    const Reduced reduced = reduce(x);
    // 2^n p + (2^n - 1), of halves because 2^n may be beyond the largest number; as zero where nothing is left of it.
    const V exponent = reduced.exponent - Real(1);
    const V half = power_of_two((exponent < Constants::kZeroExponent ? Constants::kZeroExponent + V{} : exponent) +
                                Constants::kRounder);
    return {scaled(Real(1) + reduced.minus_one, reduced.exponent),
            (reduced.minus_one * half + (half - Real(0.5))) * Real(2)};
  }

  static GECO_HD V reciprocal(V x) {
#if defined(__AVX512F__)
    if constexpr (sizeof(Real) == sizeof(float)) {
      // A division takes several times as long as this: good to 14 bits, and to all 24 after one step of Newton.
      const V guess = (V)_mm512_maskz_rcp14_ps(0xffff, (__m512)x);
      return guess + guess * (Real(1) - x * guess);
    }
#endif
    return Real(1) / x;
  }

  static GECO_HD V absolute(V x) { return from_bits(bits_of(x) & ~sign_bit()); }

  static GECO_HD V with_sign_of(V x, V magnitude) {
    return from_bits((bits_of(x) & sign_bit()) | (bits_of(magnitude) & ~sign_bit()));
  }

 private:
  struct Reduced {
    V exponent, minus_one;  // n, exp(r) - 1
  };

  static GECO_HD Reduced reduce(V x) {
    x = no_less(Constants::kLowest + V{}, no_more(Constants::kHighest + V{}, x));
    const V exponent = (x * Constants::kLog2E + Constants::kRounder) - Constants::kRounder;
    const V rest = (x - exponent * Constants::kLn2Upper) - exponent * Constants::kLn2Lower;
    constexpr int kTerms = sizeof Constants::kPolynomial / sizeof(Real);
    V polynomial = Constants::kPolynomial[kTerms - 1] + V{};
#pragma GCC unroll 16
    for (int k = kTerms - 2; k >= 0; --k) polynomial = polynomial * rest + Constants::kPolynomial[k];
    return {exponent, rest + (rest * rest) * polynomial};
  }

  // 2^n from n + kRounder, whose last bits are n; n from kZeroExponent, where it is zero, to the largest exponent.
  static GECO_HD V power_of_two(V shifted) {
    return from_bits((bits_of(shifted) << Constants::kMantissaBits) + bits_of(Real(1) + V{}));
  }

  // 2^(n - 1), zero where it is too small for an exponent.
  static GECO_HD V half_power_of_two(V exponent) {
#if defined(__AVX512F__)
    return scaled(Real(0.5) + V{}, exponent);
#else
    return power_of_two(no_less(Constants::kZeroExponent + V{}, exponent - Real(1)) + Constants::kRounder);
#endif
  }

  // Twice by half of it: 2^n itself may be beyond the largest number, or the smallest.
  static GECO_HD V scaled(V x, V exponent) {
#if defined(__AVX512F__)
    if constexpr (sizeof(Real) == sizeof(float)) {
      return (V)_mm512_maskz_scalef_ps(0xffff, (__m512)x, (__m512)exponent);
    } else {
      return (V)_mm512_maskz_scalef_pd(0xff, (__m512d)x, (__m512d)exponent);
    }
#else
    const V half = exponent * Real(0.5) + Constants::kRounder;
    const V rest = exponent - (half - Constants::kRounder) + Constants::kRounder;
    return x * power_of_two(half) * power_of_two(rest);
#endif
  }

  // The larger, or smaller, of a limit and a number; NaN stays what it is, as the processor's instructions have it for
  // their second operand.
  static GECO_HD Floats no_less(Floats limit, Floats x) {
#if defined(__AVX512F__)
    return (Floats)_mm512_maskz_max_ps(0xffff, (__m512)limit, (__m512)x);
#elif defined(__AVX2__)
    return (Floats)_mm256_max_ps((__m256)limit, (__m256)x);
#else
    return x < limit ? limit : x;
#endif
  }

  static GECO_HD Doubles no_less(Doubles limit, Doubles x) { return x < limit ? limit : x; }

  static GECO_HD Floats no_more(Floats limit, Floats x) {
#if defined(__AVX512F__)
    return (Floats)_mm512_maskz_min_ps(0xffff, (__m512)limit, (__m512)x);
#elif defined(__AVX2__)
    return (Floats)_mm256_min_ps((__m256)limit, (__m256)x);
#else
    return x > limit ? limit : x;
#endif
  }

  static GECO_HD Doubles no_more(Doubles limit, Doubles x) { return x > limit ? limit : x; }

  static GECO_HD Bits sign_bit() { return (Bits{} + 1u) << (8 * sizeof(Real) - 1); }
  static GECO_HD Bits bits_of(V values) { return (Bits)values; }
  static GECO_HD V from_bits(Bits bits) { return (V)bits; }
};

}  // namespace
}  // namespace geco::cpu

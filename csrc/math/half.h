// IEEE half and bfloat16, to and from float, one at a time and without help from the processor.
#pragma once

#include <cstdint>

#include "math/macros.h"

namespace geco {

struct Half {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

namespace detail {
GECO_HD float float_from_bits(std::uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
GECO_HD std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}
}  // namespace detail

GECO_HD float to_float(float value) { return value; }
GECO_HD double to_float(double value) { return value; }
GECO_HD float to_float(BFloat16 value) { return detail::float_from_bits(static_cast<std::uint32_t>(value.bits) << 16); }
GECO_HD float to_float(Half value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000u) << 16;
  const std::uint32_t magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return detail::float_from_bits(sign | 0x7f800000u | (magnitude << 13));  // inf, NaN
  // Scaling by 2^112 moves the exponent bias from 15 to 127 and is exact for subnormals too.
  const float scaled = detail::float_from_bits(magnitude << 13) * 0x1p112f;
  return detail::float_from_bits(sign | detail::bits_of(scaled));
}

// Rounding to nearest, ties to even.
GECO_HD BFloat16 to_bfloat16(float value) {
  const std::uint32_t bits = detail::bits_of(value);
  if (value != value) return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
GECO_HD Half to_half(float value) {
  const std::uint32_t bits = detail::bits_of(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<std::uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};  // rounds beyond 65504
  if (magnitude < 0x38800000u) {  // a subnormal half: the float adder shifts and rounds for us
    const float shifted = detail::float_from_bits(magnitude) + 0.5f;
    return {static_cast<std::uint16_t>(sign | (detail::bits_of(shifted) - 0x3f000000u))};
  }
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return {static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
}

}  // namespace geco

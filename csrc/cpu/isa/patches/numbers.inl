// Images and gradients, of any type and strides, to and from rows of one number type: a map for each channel.
#pragma once

#include "cpu/isa/patches/rows.inl"

namespace geco::cpu {
namespace {

template <class Real>
constexpr DataType kTypeOf = sizeof(Real) == sizeof(double) ? DataType::kFloat64 : DataType::kFloat32;

// Where numbers lie that can be used as they are.
template <class T>
T* numbers_at(const Planes& planes, std::int64_t channel, std::int64_t row, std::int64_t column) {
  return reinterpret_cast<T*>(planes.data) + channel * planes.channel_stride + row * planes.row_stride +
         column * planes.column_stride;
}

// Pixels of three neighbouring channels are what compilers know how to take apart.
inline bool is_interleaved(const Planes& planes, std::int64_t channels) {
  return channels == 3 && planes.channel_stride == 1 && planes.column_stride == 3;
}

template <class T, class Real>
void read_interleaved(const T* __restrict from, Real* __restrict to, std::int64_t pitch, std::int64_t count) {
  Real *const first = to, *const second = to + pitch, *const third = to + 2 * pitch;
#pragma GCC ivdep
  for (std::int64_t i = 0; i < count; ++i) {
    first[i] = static_cast<Real>(to_float(from[3 * i]));
    second[i] = static_cast<Real>(to_float(from[3 * i + 1]));
    third[i] = static_cast<Real>(to_float(from[3 * i + 2]));
  }
}

template <class T, class Real>
void read_numbers(const T* from, std::int64_t stride, Real* to, std::int64_t count) {
  std::int64_t i = 0;
  if constexpr (sizeof(Real) == sizeof(float) && sizeof(T) != sizeof(double)) {
    if (stride == 1) {
      for (; i + kLanes <= count; i += kLanes) store<float>(to + i, load(from + i));
    }
  }
  if (stride == 1) {  // a loop of its own, which compilers make vectors of
    for (; i < count; ++i) to[i] = static_cast<Real>(to_float(from[i]));
  }
  for (; i < count; ++i) to[i] = static_cast<Real>(to_float(from[i * stride]));
}

template <class T, class Real>
void read_channels(const Planes& planes, std::int64_t channels, std::int64_t row, std::int64_t column, Real* to,
                   std::int64_t pitch, std::int64_t count) {
  if (is_interleaved(planes, channels))
    return read_interleaved(numbers_at<T>(planes, 0, row, column), to, pitch, count);
  for (std::int64_t c = 0; c < channels; ++c) {
    read_numbers(numbers_at<T>(planes, c, row, column), planes.column_stride, to + c * pitch, count);
  }
}

// All channels of a row.
template <class Real>
void read_row(const Planes& planes, std::int64_t channels, std::int64_t row, std::int64_t column, Real* to,
              std::int64_t pitch, std::int64_t count) {
  switch (planes.type) {
    case DataType::kFloat32: return read_channels<float>(planes, channels, row, column, to, pitch, count);
    case DataType::kFloat64: return read_channels<double>(planes, channels, row, column, to, pitch, count);
    case DataType::kFloat16: return read_channels<Half>(planes, channels, row, column, to, pitch, count);
    default: return read_channels<BFloat16>(planes, channels, row, column, to, pitch, count);
  }
}

template <class T, class Real>
void write_channels(const Real* __restrict from, std::int64_t pitch, const Planes& planes, std::int64_t channels,
                    std::int64_t row, std::int64_t column, std::int64_t count) {
  if (is_interleaved(planes, channels)) {
    T* __restrict to = numbers_at<T>(planes, 0, row, column);
#pragma GCC ivdep
    for (std::int64_t i = 0; i < count; ++i) {
      to[3 * i] = static_cast<T>(from[i]);
      to[3 * i + 1] = static_cast<T>(from[pitch + i]);
      to[3 * i + 2] = static_cast<T>(from[2 * pitch + i]);
    }
    return;
  }
  for (std::int64_t c = 0; c < channels; ++c) {
    T* const to = numbers_at<T>(planes, c, row, column);
    std::int64_t i = 0;
    if (planes.column_stride == 1) {
      for (; i < count; ++i) to[i] = static_cast<T>(from[c * pitch + i]);
    }
    for (; i < count; ++i) to[i * planes.column_stride] = static_cast<T>(from[c * pitch + i]);
  }
}

// Gradients are float32 or float64.
template <class Real>
void write_row(const Real* from, std::int64_t pitch, const Planes& planes, std::int64_t channels, std::int64_t row,
               std::int64_t column, std::int64_t count) {
  if (planes.type == DataType::kFloat64)
    return write_channels<double>(from, pitch, planes, channels, row, column, count);
  write_channels<float>(from, pitch, planes, channels, row, column, count);
}

}  // namespace
}  // namespace geco::cpu

// Rows of an image, of any type and strides, in the columns of a strip.
#pragma once

#include "cuda/squared_error.cuh"
#include "cuda/window_columns.cuh"

namespace geco::cuda {

constexpr int kChannelsAtOnce = 4;  // whose loads are in flight together

// One image of a pair, seen by a lane: where its columns of the strip begin.
struct Plane {
  const void* data;
  std::int64_t start;  // of the first row, in elements
  std::int64_t row, channel, column;
  DataType type;
  bool in_vectors;
};

// What a load brings, still in the image's type: a load is to be waited for where its number is first used.
template <class Real, int columns>
struct Raw {
  std::uint32_t words[columns];
};
template <int columns>
struct Raw<double, columns> {
  double words[columns];
};

template <class T, int columns>
__device__ __forceinline__ void load_words(const Plane& plane, std::int64_t at, int inside, Raw<float, columns>& raw) {
  const T* from = static_cast<const T*>(plane.data) + at;
  if (plane.in_vectors) {
    const auto vector = load<T, columns>(from);
    __builtin_memcpy(raw.words, &vector, sizeof vector);
    return;
  }
#pragma unroll
  for (int j = 0; j < columns; ++j) {
    if (j >= inside) continue;
    const auto one = load<T, 1>(from + j * plane.column);
    __builtin_memcpy(&raw.words[j], &one, sizeof one);
  }
}

// `inside`: how many of the lane's columns lie in the image; the others become zero.
template <int columns>
__device__ __forceinline__ Raw<float, columns> load_row(const Plane& plane, std::int64_t at, int inside, float) {
  Raw<float, columns> raw{};
  if (inside <= 0) return raw;
  switch (plane.type) {
    case DataType::kFloat16: load_words<Half>(plane, at, inside, raw); break;
    case DataType::kBFloat16: load_words<BFloat16>(plane, at, inside, raw); break;
    default: load_words<float>(plane, at, inside, raw);
  }
  return raw;
}
template <int columns>
__device__ __forceinline__ Raw<double, columns> load_row(const Plane& plane, std::int64_t at, int inside, double) {
  Raw<double, columns> raw{};
#pragma unroll
  for (int j = 0; j < columns; ++j) {
    if (j < inside) raw.words[j] = read_element<double>(plane.data, plane.type, at + j * plane.column);
  }
  return raw;
}

template <int columns>
__device__ __forceinline__ Columns<float, columns> numbers_of(const Raw<float, columns>& raw, const Plane& plane) {
  Columns<float, columns> result;
  if (plane.type == DataType::kFloat32) {
#pragma unroll
    for (int j = 0; j < columns; ++j) result.of[j] = bit_cast<float>(raw.words[j]);
    return result;
  }
#pragma unroll
  for (int j = 0; j < columns; ++j) {
    const std::uint32_t packed = j % 2 == 1 ? raw.words[j / 2] >> 16 : raw.words[j / 2];
    const auto bits = static_cast<std::uint16_t>(plane.in_vectors ? packed : raw.words[j]);
    result.of[j] = plane.type == DataType::kFloat16 ? widen(Half{bits}) : widen(BFloat16{bits});
  }
  return result;
}
template <int columns>
__device__ __forceinline__ Columns<double, columns> numbers_of(const Raw<double, columns>& raw, const Plane&) {
  return bit_cast<Columns<double, columns>>(raw);
}

// A row of both images in some channels.
template <class Real, int columns>
struct RowOfChannels {
  Raw<Real, columns> hat[kChannelsAtOnce], x[kChannelsAtOnce];
};

struct Planes {
  Plane hat, x;
  int inside;
};

template <class Real, int columns>
__device__ __forceinline__ RowOfChannels<Real, columns> load_channels(const Planes& planes, int row, int first,
                                                                      int end) {
  RowOfChannels<Real, columns> result;
#pragma unroll
  for (int c = 0; c < kChannelsAtOnce; ++c) {
    if (first + c >= end) break;
    const auto at = [&](const Plane& p) { return p.start + row * p.row + (first + c) * p.channel; };
    result.hat[c] = load_row<columns>(planes.hat, at(planes.hat), planes.inside, Real{});
    result.x[c] = load_row<columns>(planes.x, at(planes.x), planes.inside, Real{});
  }
  return result;
}

template <class Real>
struct References {
  Real hat, x;
};

// Moments of single pixels, over channels from `first` to `end`.
template <class Real, int columns>
__device__ __forceinline__ Columns<Moments<Real>, columns> moments_of_row(const Planes& planes, int row, int first,
                                                                          int end, const References<Real>& reference) {
  Columns<Moments<Real>, columns> total;
  for (int some = first; some < end; some += kChannelsAtOnce) {
    const auto loaded = load_channels<Real, columns>(planes, row, some, end);
    Columns<Moments<Real>, columns> part;
#pragma unroll
    for (int c = 0; c < kChannelsAtOnce; ++c) {
      if (some + c >= end) break;
      const auto hat = numbers_of(loaded.hat[c], planes.hat), x = numbers_of(loaded.x[c], planes.x);
#pragma unroll
      for (int j = 0; j < columns; ++j) {
        const Moments<Real> number{hat.of[j] - reference.hat, x.of[j] - reference.x, 0, 0, 0};
        part.of[j] = c == 0 ? number : merged(part.of[j], number, merge_weights<Real>(c, 1));
      }
    }
    const int before = some - first;
    total = before == 0 ? part : joined(total, part, merge_weights<Real>(before, min(kChannelsAtOnce, end - some)));
  }
  return total;
}

}  // namespace geco::cuda

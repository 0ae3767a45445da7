// Rows of an image, of any type and strides, in the columns of a strip.
#pragma once

#include "cuda/squared_error.cuh"
#include "cuda/window_columns.cuh"

namespace geco::cuda {

// What images a kernel is compiled for. One that knows their type has the registers to keep more loads in flight.
struct Float32Images {
  using Real = float;
  static constexpr bool any_type = false;
};
struct FloatImages {  // float32 and half types, each image of its own
  using Real = float;
  static constexpr bool any_type = true;
};
struct DoubleImages {  // at least one of them
  using Real = double;
  static constexpr bool any_type = true;
};

// Channels whose loads are in flight together.
template <class Images, int columns>
constexpr int kChannelsAtOnce = Images::any_type && columns > 2 ? 1 : 3;

// One image of a pair, seen by a lane: where its columns of the strip begin, and bytes from one to the next, whatever
// the type, so that all types share the arithmetic of addresses.
struct Plane {
  const unsigned char* start;  // of the first row
  std::int64_t row, channel, column;
  DataType type;
  bool in_vectors;
};

// A row of both images in some channels, as a lane sees it. Columns beyond the image are zero.
template <class Images, int columns>
struct RowOfChannels {
  static constexpr int kChannels = kChannelsAtOnce<Images, columns>;
  Columns<typename Images::Real, columns> hat[kChannels], x[kChannels];
};

// Both images; `inside`: how many of the lane's columns lie in them.
struct Planes {
  Plane hat, x;
  int inside;
};

template <class T, class Real, int columns, int channels>
__device__ __forceinline__ void load_image(const Plane& plane, const unsigned char* from, int inside, int count,
                                           Columns<Real, columns> (&result)[channels]) {
  Vector<T, columns> loaded[channels] = {};
#pragma unroll
  for (int c = 0; c < channels; ++c) {
    if (c >= count) continue;
    const unsigned char* of_channel = from + c * plane.channel;
    if (plane.in_vectors) {
      if (inside > 0) loaded[c] = load<T, columns>(reinterpret_cast<const T*>(of_channel));
      continue;
    }
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      if (j >= inside) continue;
      loaded[c].values[j] = load<T, 1>(reinterpret_cast<const T*>(of_channel + j * plane.column)).values[0];
    }
  }
#pragma unroll
  for (int c = 0; c < channels; ++c) {
#pragma unroll
    for (int j = 0; j < columns; ++j) result[c].of[j] = static_cast<Real>(widen(loaded[c].values[j]));
  }
}

template <class Images, class Real, int columns, int channels>
__device__ __forceinline__ void load_image(const Plane& plane, int inside, int row, int first, int end,
                                           Columns<Real, columns> (&result)[channels]) {
  const unsigned char* from = plane.start + row * plane.row + first * plane.channel;
  if constexpr (!Images::any_type) return load_image<float>(plane, from, inside, end - first, result);
  switch (plane.type) {
    case DataType::kFloat16: return load_image<Half>(plane, from, inside, end - first, result);
    case DataType::kBFloat16: return load_image<BFloat16>(plane, from, inside, end - first, result);
    case DataType::kFloat32: return load_image<float>(plane, from, inside, end - first, result);
    default:
      if constexpr (sizeof(Real) == 8) load_image<double>(plane, from, inside, end - first, result);
  }
}

// The target first: it is float32 more often, and a half type is waited for where it is widened.
template <class Images, int columns>
__device__ __forceinline__ RowOfChannels<Images, columns> load_channels(const Planes& planes, int row, int first,
                                                                        int end) {
  RowOfChannels<Images, columns> result;
  load_image<Images>(planes.x, planes.inside, row, first, end, result.x);
  load_image<Images>(planes.hat, planes.inside, row, first, end, result.hat);
  return result;
}

template <class Real>
struct References {
  Real hat, x;
};

// Moments of single pixels, over channels from `first` to `end`.
template <class Images, int columns, class Real>
__device__ __forceinline__ Columns<Moments<Real>, columns> moments_of_row(const Planes& planes, int row, int first,
                                                                          int end, const References<Real>& reference) {
  constexpr int kChannels = kChannelsAtOnce<Images, columns>;
  Columns<Moments<Real>, columns> total;
  for (int some = first; some < end; some += kChannels) {
    const auto loaded = load_channels<Images, columns>(planes, row, some, end);
    Columns<Moments<Real>, columns> part;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      if (some + c >= end) break;
#pragma unroll
      for (int j = 0; j < columns; ++j) {
        const Moments<Real> number{loaded.hat[c].of[j] - reference.hat, loaded.x[c].of[j] - reference.x, 0, 0, 0};
        part.of[j] = c == 0 ? number : merged(part.of[j], number, merge_weights<Real>(c, 1));
      }
    }
    const Real before = static_cast<Real>(some - first), count = static_cast<Real>(min(kChannels, end - some));
    const Real share = count / (before + count);
    total = some == first ? part : joined(total, part, MergeWeights<Real>{share, before * share});
  }
  return total;
}

}  // namespace geco::cuda

// Rows of an image, of any type and strides, in the columns of a strip.
#pragma once

#include "cuda/window_row.cuh"

namespace geco::cuda {

// What images a kernel is compiled for (window_kernels.h).
template <bool are_interleaved>
struct Float32Images {
  using Real = float;
  static constexpr ImageTypes types = ImageTypes::kFloat32;
  static constexpr bool interleaved = are_interleaved;
};
struct FloatImages {
  using Real = float;
  static constexpr ImageTypes types = ImageTypes::kFloat;
  static constexpr bool interleaved = false;
};
struct DoubleImages {
  using Real = double;
  static constexpr ImageTypes types = ImageTypes::kDouble;
  static constexpr bool interleaved = false;
};

// One image of an example as a lane sees it: its columns of a row are a vector for each channel or, where channels are
// interleaved, as many vectors of their numbers pixel by pixel. An example is smaller than 4 GiB.
struct Plane {
  const unsigned char* start;  // in the first row
  unsigned row, vector;        // bytes from one to the next
  DataType type;

  __device__ __forceinline__ const unsigned char* at(int r, int v) const {
    return start + (static_cast<unsigned>(r) * row + static_cast<unsigned>(v) * vector);
  }
};

struct Planes {
  Plane hat, x, gradient;
};

template <class Real, int columns, int channels>
struct Pixels {
  Real hat[channels][columns], x[channels][columns];
};

// Number i of a lane's vectors, one after the other, belongs to this channel and column.
template <class Images, int columns, int channels>
struct PlaceOf {
  static GECO_HD constexpr int channel(int i) { return Images::interleaved ? i % channels : i / columns; }
  static GECO_HD constexpr int column(int i) { return Images::interleaved ? i / channels : i % columns; }
};

// A row of one image as it lies in memory: loads that nothing has waited for yet.
template <class Images, int columns, int channels>
struct LoadedImage {
  Vector<float, columns> vectors[channels];

  template <Reuse reuse>
  __device__ __forceinline__ void load(const Plane& plane, int row) {
#pragma unroll
    for (int v = 0; v < channels; ++v) {
      vectors[v] = cuda::load<reuse, float, columns>(reinterpret_cast<const float*>(plane.at(row, v)));
    }
  }

  __device__ __forceinline__ void widen(const Plane&, float (&result)[channels][columns]) const {
    using Place = PlaceOf<Images, columns, channels>;
#pragma unroll
    for (int i = 0; i < channels * columns; ++i) {
      result[Place::channel(i)][Place::column(i)] = vectors[i / columns].values[i % columns];
    }
  }
};

// Of any type, known at run time only: half types fill half of a vector.
template <int columns, int channels>
struct LoadedImage<FloatImages, columns, channels> {
  Vector<float, columns> vectors[channels];

  template <Reuse reuse>
  __device__ __forceinline__ void load(const Plane& plane, int row) {
    if (plane.type == DataType::kFloat32) {
#pragma unroll
      for (int v = 0; v < channels; ++v) {
        vectors[v] = cuda::load<reuse, float, columns>(reinterpret_cast<const float*>(plane.at(row, v)));
      }
      return;
    }
#pragma unroll
    for (int v = 0; v < channels; ++v) {
      const auto half = cuda::load<reuse, float, columns / 2>(reinterpret_cast<const float*>(plane.at(row, v)));
#pragma unroll
      for (int j = 0; j < columns; ++j) vectors[v].values[j] = j < columns / 2 ? half.values[j] : 0.0f;
    }
  }

  __device__ __forceinline__ void widen(const Plane& plane, float (&result)[channels][columns]) const {
    switch (plane.type) {
      case DataType::kFloat16: return widen_halves<Half>(result);
      case DataType::kBFloat16: return widen_halves<BFloat16>(result);
      default: break;
    }
#pragma unroll
    for (int c = 0; c < channels; ++c) {
#pragma unroll
      for (int j = 0; j < columns; ++j) result[c][j] = vectors[c].values[j];
    }
  }

  template <class T>
  __device__ __forceinline__ void widen_halves(float (&result)[channels][columns]) const {
#pragma unroll
    for (int c = 0; c < channels; ++c) {
#pragma unroll
      for (int j = 0; j < columns; j += 2) {
        const auto two = bit_cast<Vector<T, 2>>(vectors[c].values[j / 2]);
        result[c][j] = cuda::widen(two.values[0]);
        result[c][j + 1] = cuda::widen(two.values[1]);
      }
    }
  }
};

// A row of both images.
template <class Images, int columns, int channels>
struct LoadedRow {
  using Real = typename Images::Real;
  LoadedImage<Images, columns, channels> hat, x;

  template <Reuse reuse>
  __device__ __forceinline__ void load(const Planes& planes, int row) {
    x.template load<reuse>(planes.x, row);
    hat.template load<reuse>(planes.hat, row);
  }

  // Asks for a row to be loaded in a while: a lane for each line of 128 bytes, and the last one.
  static __device__ __forceinline__ void fetch(const Planes& planes, int row) {
    constexpr int kLanesOfLine = Images::interleaved ? 2 : 8, kVectors = Images::interleaved ? 1 : channels;
    if (lane() % kLanesOfLine != 0 && lane() != kWarpSize - 1) return;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      fetch_to_l2(planes.x.at(row, v));
      fetch_to_l2(planes.hat.at(row, v));
    }
  }

  __device__ __forceinline__ Pixels<Real, columns, channels> pixels(const Planes& planes) const {
    Pixels<Real, columns, channels> result;
    x.widen(planes.x, result.x);
    hat.widen(planes.hat, result.hat);
    return result;
  }
};

// Moments of a lane's columns as windows along the row need them, from those of each column. These count from the
// pixels of the first channel of `row`.
template <class Real, int columns, int channels, class OfColumn>
__device__ __forceinline__ RowMoments<Real, columns> moments_of_row(const Pixels<Real, columns, channels>& row,
                                                                    const OfColumn& of_column) {
  RowMoments<Real, columns> result;
  auto& own = result.own;
  auto& from_left = result.from_left;
  own.from = reference_at(row.hat[0][columns - 1], row.x[0][columns - 1]);
  if constexpr (columns > 1) from_left.from = to_the_left(own.from, 1);
#pragma unroll
  for (int j = 0; j < columns; ++j) {
    const Real hat = row.hat[0][j], x = row.x[0][j];
    const Moments<Real> m = of_column(j);
    own.of[j] = {hat - own.from.hat + m.mean_hat, x - own.from.x + m.mean, m.m2_hat, m.m2, m.co};
    if (j + 1 == columns) continue;
    from_left.of[j] = {hat - from_left.from.hat + m.mean_hat, x - from_left.from.x + m.mean, m.m2_hat, m.m2, m.co};
  }
  return result;
}

// Of a row of pixels: moments over the channels. These are counted from the first one: no mean rounds by more than they
// differ.
template <class Real, int columns, int channels>
__device__ __forceinline__ RowMoments<Real, columns> moments_of_row(const Pixels<Real, columns, channels>& row) {
  static_assert(channels == 1 || channels == 3);
  return moments_of_row(row, [&row](int j) {
    Moments<Real> m{0, 0, 0, 0, 0};
    if constexpr (channels == 3) {
      constexpr Real kThird = static_cast<Real>(1.0 / 3);
      const Real hat = row.hat[0][j], x = row.x[0][j];
      const Real hat_1 = row.hat[1][j] - hat, hat_2 = row.hat[2][j] - hat;
      const Real x_1 = row.x[1][j] - x, x_2 = row.x[2][j] - x;
      const Real sum_hat = hat_1 + hat_2, sum = x_1 + x_2;
      m.mean_hat = sum_hat * kThird;
      m.mean = sum * kThird;
      m.m2_hat = hat_1 * hat_1 + hat_2 * hat_2 - sum_hat * m.mean_hat;
      m.m2 = x_1 * x_1 + x_2 * x_2 - sum * m.mean;
      m.co = hat_1 * x_1 + hat_2 * x_2 - sum_hat * m.mean;
    }
    return m;
  });
}

// A row of pixels of one channel, as windows down columns take it.
template <class Real, int columns>
__device__ __forceinline__ PixelRow<Real, columns> pixel_row(const Pixels<Real, columns, 1>& row) {
  PixelRow<Real, columns> result;
#pragma unroll
  for (int j = 0; j < columns; ++j) result.of[j] = {row.hat[0][j], row.x[0][j]};
  return result;
}

// Of windows down columns, which are those of a row in turn.
template <class Real, int columns>
__device__ __forceinline__ RowMoments<Real, columns> moments_of_row(
    const Windows<ReferredMoments<Real>, columns>& row) {
  Pixels<Real, columns, 1> references;
#pragma unroll
  for (int j = 0; j < columns; ++j) {
    references.hat[0][j] = row.of[j].from.hat;
    references.x[0][j] = row.of[j].from.x;
  }
  return moments_of_row(references, [&row](int j) { return row.of[j].moments; });
}

}  // namespace geco::cuda

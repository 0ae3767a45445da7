// The strip of an image that a warp marches down.
#pragma once

#include "cuda/block.cuh"
#include "cuda/reduce.h"
#include "cuda/window_pixels.cuh"

namespace geco::cuda {

// The part of an image that a warp takes, as one of its lanes sees it.
template <class Real>
struct Strip {
  int first_row, end_row;  // that it owns
  int column;              // the lane's first one
  unsigned owned;          // a bit for each of the lane's columns
  int first_channel, end_channel;
  bool counts_joint;  // statistics of all channels count once
  Planes planes;
  Plane gradient;
  References<Real> reference;
};

// Of the lanes' finite values; zero if there is none.
__device__ __forceinline__ double warp_median(double value, bool counts) {
  counts = counts && value - value == 0;
  int rank = 0, count = 0;
#pragma unroll 1
  for (int other = 0; other < kWarpSize; ++other) {
    const double theirs = __shfl_sync(kWholeWarp, value, other);
    if (!__shfl_sync(kWholeWarp, static_cast<int>(counts), other)) continue;
    ++count;
    if (theirs < value || (theirs == value && other < lane())) ++rank;
  }
  return warp_sum(counts && rank == count / 2 ? value : 0.0);
}

// A usual number of each image, from the middle row of the strip: what is far off in all of it need not be squared. The
// median, so that no outlier decides.
template <class Images, int columns, class Real>
__device__ __forceinline__ References<Real> references(const Strip<Real>& strip) {
  const int row = (strip.first_row + strip.end_row) / 2;
  double hat = 0, x = 0;
  for (int some = strip.first_channel; some < strip.end_channel; some += kChannelsAtOnce<Images, columns>) {
    const auto loaded = load_channels<Images, columns>(strip.planes, row, some, strip.end_channel);
#pragma unroll
    for (int c = 0; c < kChannelsAtOnce<Images, columns>; ++c) {
      if (some + c >= strip.end_channel) break;
#pragma unroll
      for (int j = 0; j < columns; ++j) {
        hat += static_cast<double>(loaded.hat[c].of[j]);
        x += static_cast<double>(loaded.x[c].of[j]);
      }
    }
  }
  const bool inside = strip.planes.inside > 0;
  const double numbers = static_cast<double>(max(min(strip.planes.inside, columns), 1)) *
                         static_cast<double>(strip.end_channel - strip.first_channel);
  return {static_cast<Real>(warp_median(hat / numbers, inside)), static_cast<Real>(warp_median(x / numbers, inside))};
}

template <class Images, int columns>
__device__ __forceinline__ Strip<typename Images::Real> strip_of(const Plan& plan, const Item& item, int channel,
                                                                 std::int64_t index) {
  using Real = typename Images::Real;
  const Strips& strips = plan.strips;
  const int height = static_cast<int>(item.outer[1].size), width = static_cast<int>(item.inner.size);
  const int across = static_cast<int>(index % strips.across);
  const int down = static_cast<int>(index / strips.across % strips.down);
  const std::int64_t example = index / strips.across / strips.down;
  const bool split = item.channels > 1;

  Strip<Real> strip;
  strip.first_row = down * strips.rows;
  strip.end_row = min(strip.first_row + strips.rows, height);
  strip.column = across * strips.step + lane() * columns;
  strip.first_channel = split ? channel : 0;
  strip.end_channel = split ? channel + 1 : static_cast<int>(item.channel.size);
  strip.counts_joint = channel == 0;

  const int first_owned = across == 0 ? 0 : across * strips.step + strips.halo;
  const int end_owned = across + 1 == strips.across ? width : across * strips.step + strips.halo + strips.step;
  strip.owned = 0;
#pragma unroll
  for (int j = 0; j < columns; ++j) {
    const int column = strip.column + j;
    if (column >= first_owned && column < end_owned) strip.owned |= 1u << j;
  }

  const auto plane = [&](const void* data, std::int64_t Dimension::* stride, DataType type, bool in_vectors) {
    const std::int64_t start = example * (item.outer[0].*stride) + strip.column * (item.inner.*stride);
    return Plane{static_cast<const unsigned char*>(data) + start,
                 item.outer[1].*stride,
                 item.channel.*stride,
                 item.inner.*stride,
                 type,
                 in_vectors};
  };
  const DataType of_gradient =
      item.type_of_prediction() == DataType::kFloat64 ? DataType::kFloat64 : DataType::kFloat32;
  strip.planes = {
      plane(item.prediction, &Dimension::prediction, item.type_of_prediction(), strips.prediction_in_vectors),
      plane(item.target, &Dimension::target, item.type_of_target(), strips.target_in_vectors),
      min(width - strip.column, columns)};
  strip.gradient = plane(item.gradient, &Dimension::gradient, of_gradient, strips.gradient_in_vectors);
  strip.reference = references<Images, columns>(strip);
  return strip;
}

}  // namespace geco::cuda

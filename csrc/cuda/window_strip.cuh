// The strip of an image that a warp marches down.
#pragma once

#include "cuda/block.cuh"
#include "cuda/reduce.h"
#include "cuda/window_pixels.cuh"

namespace geco::cuda {

// The part of an image that a warp takes, as one of its lanes sees it. Narrow images lie side by side in a warp.
struct Strip {
  std::int64_t example;
  int channel;             // the one that the warp works on, or 0 where it works on all
  int first_row, end_row;  // that the warp owns
  int height;              // of the image
  int column;              // of the image, the lane's first one
  int inside;              // the lane's columns that lie in the image
  int room;                // columns from the lane's first one on that windows may cover
  unsigned owned;          // a bit for each of the lane's columns
};

// Where rows of a line (plan.h, Strips) belong to: which column of strips, which of the images (or those beside each
// other) that lie end to end, and the row of these.
struct LinePosition {
  int across;
  std::int64_t image;
  int row;
};

__device__ __forceinline__ LinePosition position_in_line(const Strips& strips, int across, std::int64_t at) {
  const std::int64_t image = at / strips.line;
  return {across, image, static_cast<int>(at - image * strips.line)};
}

template <int columns>
__device__ __forceinline__ Strip strip_of(const Plan& plan, const Operand& operand, int channel, const LinePosition& at,
                                          int end_row) {
  const Strips& strips = plan.strips;
  const int width = static_cast<int>(operand.inner.size);
  const std::int64_t first_example = at.image * strips.beside;
  const int across = at.across;
  const int beside = lane() / strips.lanes;  // which of the images of a warp
  const bool exists = beside < strips.beside && first_example + beside < operand.outer[0].size;

  Strip strip;
  strip.example = exists ? first_example + beside : first_example;
  strip.channel = operand.channels > 1 ? channel : 0;
  strip.first_row = at.row;
  strip.end_row = end_row;
  strip.height = static_cast<int>(operand.outer[1].size);
  const int lane_of_image = lane() - beside * strips.lanes;
  strip.column = across * strips.step + lane_of_image * columns;
  strip.inside = exists ? min(width - strip.column, columns) : 0;
  strip.room = exists ? min(width - strip.column, (strips.lanes - lane_of_image) * columns) : 0;

  const int first_owned = across == 0 ? 0 : across * strips.step + strips.halo;
  const int end_owned = across + 1 == strips.across ? width : across * strips.step + strips.halo + strips.step;
  strip.owned = 0;
#pragma unroll
  for (int j = 0; j < columns; ++j) {
    const int column = strip.column + j;
    if (j < strip.inside && column >= first_owned && column < end_owned) strip.owned |= 1u << j;
  }
  return strip;
}

// The images of a strip in vectors. Lanes beyond the image see its last columns.
template <class Images, int columns>
__device__ __forceinline__ Planes planes_of(const Operand& operand, const Strip& strip) {
  const std::int64_t column = min(strip.column, static_cast<int>(operand.inner.size) - columns);
  const auto plane = [&](const void* data, std::int64_t Dimension::* stride, DataType type) {
    const std::int64_t start = strip.example * (operand.outer[0].*stride) + strip.channel * (operand.channel.*stride) +
                               column * (operand.inner.*stride);
    const std::int64_t vector = (Images::interleaved ? columns : 1) * (operand.channel.*stride);
    return Plane{static_cast<const unsigned char*>(data) + start, static_cast<unsigned>(operand.outer[1].*stride),
                 static_cast<unsigned>(vector), type};
  };
  return {plane(operand.prediction, &Dimension::prediction, operand.type_of_prediction()),
          plane(operand.target, &Dimension::target, operand.type_of_target()),
          plane(operand.gradient, &Dimension::gradient, DataType::kFloat32)};
}

// Which of the lane's columns begin a patch: a bit for each.
template <int columns>
__device__ __forceinline__ unsigned starts_of_patches(const Strip& strip, int size, int stride) {
  unsigned starts = 0;
#pragma unroll
  for (int j = 0; j < columns; ++j) {
    if (j + size <= strip.room && (stride == 1 || (strip.column + j) % stride == 0)) starts |= 1u << j;
  }
  return starts;
}

// Which rows patches begin in, asked row by row.
struct StartRows {
  int next, stride;

  __device__ __forceinline__ StartRows(int first_row, int stride_of_patches)
      : next((first_row + stride_of_patches - 1) / stride_of_patches * stride_of_patches), stride(stride_of_patches) {}

  __device__ __forceinline__ bool is_next(int row) {
    if (row != next) return false;
    next += stride;
    return true;
  }
};

}  // namespace geco::cuda

// Windowed constraints: each warp marches down a strip of an image, a row at a time, and writes the gradient of the
// rows behind it. Statistics of patches, their coefficients and the sums of these stay in the warp's registers and
// rings, so warps wait for nobody; squared errors of the same images are made on the way.
//
// A strip is 32, 64 or 128 columns, with the halo that its patches need at both sides and above its first row. Pixels
// are read once for each size of patch and once more where their gradient is written, size - 1 rows later: by then
// they come from the L2 cache.
#pragma once

#include "cuda/window_block.cuh"
#include "cuda/window_pixels.cuh"
#include "cuda/window_ring.cuh"

namespace geco::cuda {

struct DeviceMath {
  static __device__ __forceinline__ float inverse_sqrt(float value) {
#if defined(__CUDA_ARCH__)
    const float y = rsqrtf(value);  // two units in the last place off; a Newton step leaves one
    return fmaf(0.5f * y, fmaf(-value * y, y, 1.0f), y);
#else
    return 1.0f / std::sqrt(value);
#endif
  }
  static __device__ __forceinline__ double inverse_sqrt(double value) { return 1.0 / sqrt(value); }

  // Not a number stays that.
  template <class Real>
  static __device__ __forceinline__ Real max(Real value, Real least) {
    return value < least ? least : value;
  }
  template <class Real>
  static __device__ __forceinline__ Real min(Real value, Real most) {
    return value > most ? most : value;
  }
};

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

template <class Images, int columns, class Real>
__device__ __forceinline__ References<Real> references(const Strip<Real>& strip, int width) {
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
  const int first = strip.column - lane() * columns;
  const double numbers = static_cast<double>(min(width - first, kWarpSize * columns)) *
                         static_cast<double>(strip.end_channel - strip.first_channel);
  return {static_cast<Real>(warp_sum(hat) / numbers), static_cast<Real>(warp_sum(x) / numbers)};
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
  strip.reference = references<Images, columns>(strip, width);
  return strip;
}

// Which columns begin a patch: a bit for each column of the lane, four for each window.
template <int columns>
__device__ __forceinline__ std::uint64_t starts_of_patches(const Plan& plan, int first, int width) {
  std::uint64_t starts = 0;
  for (int w = 0; w < plan.window_count; ++w) {
    const Window& window = plan.windows[w];
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      const int column = first + j;
      if (column + window.size <= width && column % window.stride == 0) starts |= std::uint64_t{1} << (4 * w + j);
    }
  }
  return starts;
}

// Values and coefficients of the patches of one row, from their moments.
template <class Real, int columns>
__device__ __forceinline__ void measure(const Plan& plan, const Strip<Real>& strip, int window, unsigned starts,
                                        bool counts, const Columns<Moments<Real>, columns>& moments,
                                        const WindowShared<Real>& shared,
                                        Columns<PatchCoefficients<Real>, columns>& coefficients) {
  PatchRule<Real> rule = shared.rules[window];
  rule.reference_gap = strip.reference.hat - strip.reference.x;
  const bool correlation = plan.terms[plan.windows[window].term].kind() == TermKind::kPatchCorrelation;
  Real sum = 0;
#pragma unroll
  for (int j = 0; j < columns; ++j) {
    PatchCoefficients<Real> of_patch{0, 0, 0};
    const Real value = correlation ? patch_correlation<DeviceMath>(moments.of[j], rule, of_patch)
                                   : local_statistics<DeviceMath>(moments.of[j], rule, of_patch);
    if ((starts >> j & 1u) == 0) continue;
    if (strip.owned >> j & 1u) sum += value;
    coefficients.of[j].a += of_patch.a;
    coefficients.of[j].b += of_patch.b;
    coefficients.of[j].d += of_patch.d;
  }
  if (counts) shared.sums[window * kWarpSize] += static_cast<double>(sum);
}

// The gradient of one row and its squared errors, where windows sum up to `box`.
template <class Images, int columns, class Real>
__device__ __forceinline__ void write_row(const Item& item, const Strip<Real>& strip, int row, int window_count,
                                          const Columns<PatchCoefficients<Real>, columns>& box,
                                          const WindowShared<Real>& shared) {
  for (int some = strip.first_channel; some < strip.end_channel; some += kChannelsAtOnce<Images, columns>) {
    const auto loaded = load_channels<Images, columns>(strip.planes, row, some, strip.end_channel);
#pragma unroll
    for (int c = 0; c < kChannelsAtOnce<Images, columns>; ++c) {
      if (some + c >= strip.end_channel) break;
      const Columns<Real, columns>&hat = loaded.hat[c], &x = loaded.x[c];
      const int which = shared.squared_errors > 1 ? some + c : 0;
      const Real coefficient = shared.squared_errors > 0 ? static_cast<Real>(shared.squared_error[which]) : 0;
      Vector<Real, columns> gradient;
      Real squares = 0;
#pragma unroll
      for (int j = 0; j < columns; ++j) {
        const Real difference = hat.of[j] - x.of[j];
        if (strip.owned >> j & 1u) squares += difference * difference;
        gradient.values[j] = (x.of[j] - strip.reference.x) * box.of[j].a -
                             (hat.of[j] - strip.reference.hat) * box.of[j].b + box.of[j].d + difference * coefficient;
      }
      if (shared.squared_errors > 0) {
        shared.sums[(window_count + which) * kWarpSize] += static_cast<double>(squares);
      }
      if (!item.gradient) continue;
      const Plane& plane = strip.gradient;
      auto* to = const_cast<unsigned char*>(plane.start) + row * plane.row + (some + c) * plane.channel;
      if constexpr (sizeof(Real) == 4) {
        if (plane.in_vectors) {
          if (strip.owned) store(reinterpret_cast<float*>(to), gradient, item.stream);
          continue;
        }
      }
#pragma unroll
      for (int j = 0; j < columns; ++j) {
        if (strip.owned >> j & 1u) write_gradient(to + j * plane.column, plane.type, 0, gradient.values[j]);
      }
    }
  }
}

// Rows from the top of the first patch that reaches the strip to the last row of the strip. At each the patches that
// begin there are complete: they reach size - 1 rows further down, where the windows of that size have got to.
template <class Images, int columns, class Real>
__device__ __forceinline__ void march(const Plan& plan, const Item& item, const Strip<Real>& strip,
                                      const WindowShared<Real>& shared) {
  using Statistics = Columns<Moments<Real>, columns>;
  using Coefficients = Columns<PatchCoefficients<Real>, columns>;
  const int height = static_cast<int>(item.outer[1].size), width = static_cast<int>(item.inner.size);
  const std::uint64_t starts = starts_of_patches<columns>(plan, strip.column, width);
  const int ring_width = plan.strips.ring_columns;
  const bool writes = item.gradient || shared.squared_errors > 0;

  int largest = 1;
  for (int w = 0; w < plan.window_count; ++w) largest = max(largest, static_cast<int>(plan.windows[w].size));
  const int first = max(strip.first_row - largest + 1, 0) - largest + 1;
#pragma unroll 1
  for (int top = first; top < strip.end_row; ++top) {
    Coefficients total{};
    Real* ring = shared.rings + lane() * columns;
#pragma unroll 1
    for (int w = 0; w < plan.window_count;) {
      const Window& window = plan.windows[w];
      const MergeWeights<Real>* digits = shared.digits + w * kLevels;
      const int row = top + window.size - 1;
      int end = w + 1;
      while (end < plan.window_count && plan.windows[end].shares_statistics) ++end;
      if (row >= max(strip.first_row - window.size + 1, 0)) {
        Coefficients coefficients{};
        const bool inside = strip.planes.inside > 0;
        const Ring<Moments<Real>, columns> of_moments{ring, ring_width, inside};
        const Ring<PatchCoefficients<Real>, columns> of_coefficients{
            ring + ring_rows(window.size) * kMomentNumbers * ring_width, ring_width, inside};
        const bool begins = top >= 0 && top % window.stride == 0;
        if (row < height) {
          const bool joint = !window.per_channel;
          const int first_channel = joint ? 0 : strip.first_channel;
          const int end_channel = joint ? static_cast<int>(item.channel.size) : strip.end_channel;
          const Real numbers = static_cast<Real>(end_channel - first_channel);
          Statistics power = moments_of_row<Images, columns>(strip.planes, row, first_channel, end_channel,
                                                             strip.reference),
                     moments;
          along_row<false>(power, moments, window.size, numbers, digits);
          moments =
              down_column(moments, of_moments, row, window.size, numbers * static_cast<Real>(window.size), digits);
          if (begins && top >= strip.first_row - window.size + 1) {
            const bool counts = top >= strip.first_row && (!joint || strip.counts_joint);
            for (int i = w; i < end; ++i) {
              measure(plan, strip, i, static_cast<unsigned>(starts >> (4 * i)) & 15u, counts, moments, shared,
                      coefficients);
            }
          }
        }
        if (item.gradient) {
          Coefficients boxes = coefficients;
          if (begins) along_row<true>(coefficients, boxes, window.size, Real{1}, digits);
          boxes = down_column(boxes, of_coefficients, row, window.size, Real{1}, digits);
#pragma unroll
          for (int j = 0; j < columns; ++j) total.of[j] = joined(total.of[j], boxes.of[j], MergeWeights<Real>{});
        }
      }
      ring += ring_rows(window.size) * kRingNumbers * ring_width;
      w = end;
    }
    if (writes && top >= strip.first_row) write_row<Images>(item, strip, top, plan.window_count, total, shared);
  }
}

// A block's share of the strips.
template <class Images, int columns>
__device__ __forceinline__ void windows(const Plan& plan, const Share& share, Shared& block) {
  using Real = typename Images::Real;
  const Item& item = plan.items[0];
  const WindowShared<Real> shared = window_shared<Real>(plan, block);
  prepare_windows(plan, item, share, shared);
  const int warps = plan.strips.warps;
  if (warp() < warps) {
    for (int s = 0; s < plan.strips.sums; ++s) shared.sums[s * kWarpSize] = 0;
    for (std::int64_t i = share.index * warps + warp(); i < item.elements; i += item.blocks * warps) {
      march<Images, columns>(plan, item, strip_of<Images, columns>(plan, item, share.channel, i), shared);
    }
  }
  hand_in_windows(plan, item, share, shared);
}

}  // namespace geco::cuda

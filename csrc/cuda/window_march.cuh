// Windowed constraints: each warp marches down a strip of an image, a row at a time, and writes the gradient of the
// rows behind it. Statistics of patches, their coefficients and the sums of these stay in the warp's registers and
// rings, so warps wait for nobody; squared errors of the same images are made on the way.
//
// A strip is 32, 64 or 128 columns, with the halo that its patches need at both sides and above its first row. Pixels
// are read once for each size of patch and once more where their gradient is written, size - 1 rows later: by then
// they come from the L2 cache.
#pragma once

#include "cuda/window_block.cuh"
#include "cuda/window_measure.cuh"
#include "cuda/window_pixels.cuh"
#include "cuda/window_ring.cuh"
#include "cuda/window_strip.cuh"

namespace geco::cuda {

// Neighbouring windows of the plan that share their statistics, and where their rings begin.
template <class Real>
struct Group {
  int first, end;  // windows
  int size, stride;
  bool joint;
  const MergeWeights<Real>* digits;
  Real* ring;
};

// The patches that begin in row `top` are complete where the windows of their size have got to, size - 1 rows further
// down. Returns their coefficients and adds up their values.
template <class Images, int columns, class Real>
__device__ __forceinline__ Columns<PatchCoefficients<Real>, columns> coefficients_of_row(
    const Plan& plan, const Item& item, const Strip<Real>& strip, const Group<Real>& group, int top,
    std::uint64_t starts, const WindowShared<Real>& shared) {
  Columns<PatchCoefficients<Real>, columns> coefficients{};
  const int row = top + group.size - 1;
  if (row >= static_cast<int>(item.outer[1].size)) return coefficients;
  const int first_channel = group.joint ? 0 : strip.first_channel;
  const int end_channel = group.joint ? static_cast<int>(item.channel.size) : strip.end_channel;
  const Real numbers = static_cast<Real>(end_channel - first_channel);
  auto power = moments_of_row<Images, columns>(strip.planes, row, first_channel, end_channel, strip.reference);
  auto moments = power;
  along_row<false>(power, moments, group.size, numbers, group.digits);
  const Ring<Moments<Real>, columns> ring{group.ring, plan.strips.ring_columns, strip.planes.inside > 0};
  moments = down_column(moments, ring, row, group.size, numbers * static_cast<Real>(group.size), group.digits);
  if (top < max(strip.first_row - group.size + 1, 0) || top % group.stride != 0) return coefficients;
  const bool counts = top >= strip.first_row && (!group.joint || strip.counts_joint);
  for (int w = group.first; w < group.end; ++w) {
    measure(plan, strip, w, static_cast<unsigned>(starts >> (4 * w)) & 15u, counts, moments, shared, coefficients);
  }
  return coefficients;
}

// Their sums over the patches that cover each pixel of row `top`.
template <int columns, class Real>
__device__ __forceinline__ Columns<PatchCoefficients<Real>, columns> boxes_of_row(
    const Plan& plan, const Strip<Real>& strip, const Group<Real>& group, int top,
    Columns<PatchCoefficients<Real>, columns> power) {
  auto boxes = power;
  if (top >= 0 && top % group.stride == 0) along_row<true>(power, boxes, group.size, Real{1}, group.digits);
  const int ring_columns = plan.strips.ring_columns;
  const Ring<PatchCoefficients<Real>, columns> ring{group.ring + ring_rows(group.size) * kMomentNumbers * ring_columns,
                                                    ring_columns, strip.planes.inside > 0};
  return down_column(boxes, ring, top + group.size - 1, group.size, Real{1}, group.digits);
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

// Rows from the top of the first patch that reaches the strip to the last row of the strip.
template <class Images, int columns, class Real>
__device__ __forceinline__ void march(const Plan& plan, const Item& item, const Strip<Real>& strip,
                                      const WindowShared<Real>& shared) {
  const std::uint64_t starts = starts_of_patches<columns>(plan, strip.column, static_cast<int>(item.inner.size));
  int largest = 1;
  for (int w = 0; w < plan.window_count; ++w) largest = max(largest, static_cast<int>(plan.windows[w].size));
  const int first = max(strip.first_row - largest + 1, 0) - largest + 1;
#pragma unroll 1
  for (int top = first; top < strip.end_row; ++top) {
    Columns<PatchCoefficients<Real>, columns> total{};
    Real* ring = shared.rings + lane() * columns;
#pragma unroll 1
    for (int w = 0; w < plan.window_count;) {
      const Window& window = plan.windows[w];
      int end = w + 1;
      while (end < plan.window_count && plan.windows[end].shares_statistics) ++end;
      const Group<Real> group{w,   end, window.size, window.stride, !window.per_channel, shared.digits + w * kLevels,
                              ring};
      if (top + group.size - 1 >= max(strip.first_row - group.size + 1, 0)) {
        auto coefficients = coefficients_of_row<Images, columns>(plan, item, strip, group, top, starts, shared);
        if (item.gradient) {
          coefficients = boxes_of_row(plan, strip, group, top, coefficients);
          total = joined(total, coefficients, MergeWeights<Real>{});
        }
      }
      ring += ring_rows(group.size) * kRingNumbers * plan.strips.ring_columns;
      w = end;
    }
    const bool writes = item.gradient || shared.squared_errors > 0;
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

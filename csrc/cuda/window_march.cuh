// Windowed constraints of patch sizes known at compile time: each warp marches down a strip of an image, two rows at a
// time, and writes the gradient of the rows behind it. Statistics of patches, their coefficients and the sums of these
// stay in the warp's registers and rings, so warps wait for nobody; squared errors of the same images are made on the
// way.
//
// A strip is 32 or 128 columns, with the halo that its patches need at both sides and above its first row. Pixels are
// read once for each size of patch, with one channel again as the top of windows (window_kernels.h), and once more
// where their gradient is written, size - 1 rows later: by then they come from the L2 cache.
#pragma once

#include "cuda/window_block.cuh"
#include "cuda/window_column.cuh"
#include "cuda/window_measure.cuh"
#include "cuda/window_strip.cuh"

namespace geco::cuda {

// Whether a kernel tells caches what it loads again, and when. One channel and patches of 11 have no registers left for
// that, and a column to a lane takes as long with it as without.
GECO_HD constexpr bool tells_caches(int channels, int size, int columns) {
  return channels > 1 && size != 11 && columns > 1;
}

// What windows of a size measure. `kCorrelation`: one correlation, and nothing beside it but a squared error, as in
// most calls: its loop has half the code of others, which instruction caches hold. `kAny`: any windowed constraints,
// and measures beside them. `kEither`: a correlation or any, as it is found when the kernel runs.
enum class Constrained { kCorrelation, kAny, kEither };

// The windows of one size: of the plan those from `first` to `end`, which share their statistics.
template <class Images, int size, int channels, int columns, Constrained constrained>
class MarchOfSize {
  using Real = typename Images::Real;
  using Row = Windows<Moments<Real>, columns>;
  using CoefficientRow = Windows<PatchCoefficients<Real>, columns>;
  using Loaded = LoadedRow<Images, columns, channels>;
  static constexpr bool kDownFirst = goes_down_first(channels), kTellsCaches = tells_caches(channels, size, columns);
  static constexpr Reuse kAgain = kTellsCaches ? Reuse::kSoon : Reuse::kUnsaid;
  using MomentsInRing = std::conditional_t<kDownFirst, ReferredMoments<Real>, Moments<Real>>;
  using SingleRow = std::conditional_t<kDownFirst, PixelRow<Real, columns>, Row>;
  static constexpr int kNumbersOfMoment = kDownFirst ? 1 : size * channels;
  using MomentsDown = Down<MomentsInRing, SingleRow, size, kNumbersOfMoment, columns>;
  using CoefficientsDown = Down<PatchCoefficients<Real>, CoefficientRow, size, 1, columns>;
  static constexpr int kMomentNumbersOfRing = ring_moments_of_pairs(size, channels, columns) * kWarpSize;
  static_assert(kMomentNumbersOfRing == MomentsDown::kRows * Ring<MomentsInRing, columns>::kOfLane * kWarpSize);

 public:
  static constexpr int kNumbersOfRings = ring_numbers_of_pairs(size, channels, columns) * kWarpSize;
  static_assert(kNumbersOfRings - kMomentNumbersOfRing ==
                CoefficientsDown::kRows * Ring<PatchCoefficients<Real>, columns>::kOfLane * kWarpSize);

  __device__ __forceinline__ MarchOfSize(const Plan& plan, const Strip& strip, const Planes& planes, int first, int end,
                                         const WindowShared<Real>& shared, Real* rings)
      : first_(first),
        end_(end),
        is_correlation_(first + 1 == end && shared.rules[first].kind == ConstraintKind::kPatchCorrelation),
        starts_(starts_of_patches<columns>(strip, size, plan.windows[first].stride)),
        first_row_(max(strip.first_row - size + 1, 0)),
        start_rows_(first_row_, plan.windows[first].stride),
        moment_ring_{rings},
        coefficient_ring_{rings + kMomentNumbersOfRing} {
    moments_.begin(Reference<Real>{0, 0});
    coefficients_.begin(Reference<Real>{0, 0});
    upper_.template load<kAgain>(planes, first_row_ / 2 * 2);
  }

  // Takes the two rows in which patches that begin in rows `top` and top + 1 end; the first of them is even. Returns
  // the coefficients of these patches.
  __device__ __forceinline__ void measure(const Strip& strip, const Planes& planes, const WindowShared<Real>& shared,
                                          int top, CoefficientRow (&coefficients)[2]) {
    const int pair = pair_of(top);
    coefficients[0] = coefficients[1] = nothing<PatchCoefficients<Real>, columns>(Reference<Real>{0, 0});
    if (pair < first_row_ / 2 || 2 * pair >= strip.height) return;
    Row rows[2];
    statistics(strip, planes, pair, rows);
    if (!begun(top)) return;
    measure(strip, shared, rows, top, coefficients);
    for (CoefficientRow& row : coefficients) row.weight = weight_of_last(row.of, columns);
    if (top < first_row_)
      coefficients[0] = nothing<PatchCoefficients<Real>, columns>(rows[1].from);  // that row was incomplete
    if (top <= 0) {                                                               // no patches begin above the image
      coefficients_.begin(rows[1].from);
      coefficient_ring_.clear(CoefficientsDown::kRows, rows[1].from);
    }
  }

  // Whether the first patches have ended.
  __device__ __forceinline__ bool begun(int top) const { return top + 1 >= first_row_; }

  // The sums of coefficients for the gradient of rows `top` and top + 1, once begun.
  __device__ __forceinline__ void spread(int top, CoefficientRow (&coefficients)[2]) {
    const CoefficientRow upper = over_row<size>(coefficients[0]), lower = over_row<size>(coefficients[1]);
    coefficients_.push(coefficient_ring_, pair_of(top), upper, lower, coefficients);
  }

 private:
  static __device__ __forceinline__ int pair_of(int top) { return (top + size - 1) / 2; }

  // Moments of the windows that end with a pair of rows.
  __device__ __forceinline__ void statistics(const Strip& strip, const Planes& planes, int pair, Row (&rows)[2]) {
    const int last = strip.height - 1;
    // Loads of a row come after the first use of the one before: a wait for one would be a wait for both.
    if constexpr (kDownFirst) {
      Loaded lower, top;
      top.template load<kAgain>(planes, max(MomentsDown::top_of(pair), 0));
      lower.template load<kAgain>(planes, min(2 * pair + 1, last));
      const SingleRow upper_pixels = pixel_row(upper_.pixels(planes));
      upper_.template load<kAgain>(planes, min(2 * pair + 2, last));
      Windows<MomentsInRing, columns> down[2];
      moments_.push(moment_ring_, pair, pixel_row(top.pixels(planes)), upper_pixels, pixel_row(lower.pixels(planes)),
                    down);
#pragma unroll
      for (int i = 0; i < 2; ++i) rows[i] = along_row<size, size>(moments_of_row(down[i]));
    } else {
      // The rows that the next pair loads: registers have no room for them.
      if constexpr (kTellsCaches) {
        Loaded::fetch(planes, min(2 * pair + 3, last));
        Loaded::fetch(planes, min(2 * pair + 4, last));
      }
      const auto moments = moments_of_row(upper_.pixels(planes));
      Loaded lower;
      lower.template load<kAgain>(planes, min(2 * pair + 1, last));
      Row along[2];
      along[0] = along_row<size, channels>(moments);
      const auto moments_of_lower = moments_of_row(lower.pixels(planes));
      upper_.template load<kAgain>(planes, min(2 * pair + 2, last));
      along[1] = along_row<size, channels>(moments_of_lower);
      moments_.push(moment_ring_, pair, along[0], along[1], rows);
    }
  }

  __device__ __forceinline__ void measure(const Strip& strip, const WindowShared<Real>& shared, const Row (&rows)[2],
                                          int top, CoefficientRow (&coefficients)[2]) {
    unsigned starts[2], counted[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      coefficients[i].from = rows[i].from;
      const bool begins = start_rows_.is_next(top + i) && top + i + size <= strip.height;
      starts[i] = begins ? starts_ : 0;
      counted[i] = top + i >= strip.first_row && top + i < strip.end_row ? starts[i] & strip.owned : 0;
    }
    if (constrained == Constrained::kCorrelation || (constrained == Constrained::kEither && is_correlation_)) {
      Real sum = 0;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        sum += cuda::measure<false>(PatchCorrelation<PatchMath>{}, shared.rules[first_].rule, rows[i], starts[i],
                                    counted[i], coefficients[i]);
      }
      shared.sums[first_ * kWarpSize] += static_cast<double>(sum);
      return;
    }
#pragma unroll 1
    for (int w = first_; w < end_; ++w) {
      const WindowRule<Real>& window = shared.rules[w];
      Real sum = 0;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        with_formula_of<PatchMath>(window.kind, [&](const auto& formula) {
          sum += cuda::measure<true>(formula, window.rule, rows[i], starts[i], counted[i], coefficients[i]);
        });
      }
      shared.sums[w * kWarpSize] += static_cast<double>(sum);
    }
  }

  int first_, end_;
  bool is_correlation_;
  unsigned starts_;
  int first_row_;  // of the first patches
  StartRows start_rows_;
  Ring<MomentsInRing, columns> moment_ring_;
  Ring<PatchCoefficients<Real>, columns> coefficient_ring_;
  MomentsDown moments_;
  CoefficientsDown coefficients_;
  Loaded upper_;  // the next row
};

// The gradient of one row, its squared errors and other measures, where windows sum up to `box`.
template <class Images, Constrained constrained, class Real, int columns, int channels>
__device__ __forceinline__ void write_row(const Operand& operand, const Strip& strip, const Planes& planes, int row,
                                          const Pixels<Real, columns, channels>& pixels,
                                          const Windows<PatchCoefficients<Real>, columns>& box,
                                          const Real (&coefficients)[channels], Real (&squares)[channels],
                                          const Plan& plan, const WindowShared<Real>& shared) {
  Real gradient[channels][columns];
#pragma unroll
  for (int c = 0; c < channels; ++c) {
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      const Real hat = pixels.hat[c][j], x = pixels.x[c][j];
      const Real difference = hat - x;
      if (strip.owned >> j & 1u) squares[c] += difference * difference;
      gradient[c][j] = (x - box.from.x) * box.of[j].a - (hat - box.from.hat) * box.of[j].b + box.of[j].d +
                       difference * coefficients[c];
    }
  }
  if (constrained == Constrained::kAny && shared.others > 0) {
#pragma unroll
    for (int c = 0; c < channels; ++c) {
      add_other_measures(plan, operand, shared, c, strip.owned, pixels.hat[c], pixels.x[c], gradient[c]);
    }
  }
  if (!operand.gradient || strip.owned == 0) return;
  using Place = PlaceOf<Images, columns, channels>;
#pragma unroll
  for (int v = 0; v < channels; ++v) {
    Vector<Real, columns> vector;
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      const int i = v * columns + j;
      vector.values[j] = gradient[Place::channel(i)][Place::column(i)];
    }
    auto* to = const_cast<unsigned char*>(planes.gradient.at(row, v));
    store(reinterpret_cast<Real*>(to), vector, operand.stream);
  }
}

// One size of patches, or with `smaller` two of them, both even: all go down together.
template <class Images, int channels, int columns, int size, int smaller>
struct FixedMarch {
  static constexpr int kColumns = columns;
  static constexpr Reuse kLast = tells_caches(channels, size, columns) ? Reuse::kNever : Reuse::kUnsaid;
  using ImageTypesOfMarch = Images;
  using Real = typename Images::Real;
  using Coefficients = Windows<PatchCoefficients<Real>, columns>;
  template <Constrained constrained>
  using Larger = MarchOfSize<Images, size, channels, columns, constrained>;

  static __device__ __forceinline__ void march(const Plan& plan, const Operand& operand, const Strip& strip,
                                               const WindowShared<Real>& shared) {
    if constexpr (smaller == 0) {
      const bool correlation =
          plan.window_count == 1 && shared.rules[0].kind == ConstraintKind::kPatchCorrelation && shared.others == 0;
      if (correlation) return march_one_size<Constrained::kCorrelation>(plan, operand, strip, shared);
      march_one_size<Constrained::kAny>(plan, operand, strip, shared);
    } else {
      const Planes planes = planes_of<Images, columns>(operand, strip);
      const Rows rows(strip, shared);
      static_assert(size % 2 == 0 && smaller % 2 == 0);
      int count = 1;  // windows of the smaller size come first
      while (plan.windows[count].size == smaller) ++count;
      using Many = Larger<Constrained::kEither>;
      MarchOfSize<Images, smaller, channels, columns, Constrained::kEither> few(plan, strip, planes, 0, count, shared,
                                                                                shared.rings + Many::kNumbersOfRings);
      Many many(plan, strip, planes, count, plan.window_count, shared, shared.rings);
#pragma unroll 1
      for (int top = rows.first; top < strip.end_row; top += 2) {
        Coefficients boxes[2], more[2];
        many.measure(strip, planes, shared, top, boxes);
        few.measure(strip, planes, shared, top, more);
        if (!many.begun(top)) continue;
        const auto loaded = rows.load(strip, planes, top);
        many.spread(top, boxes);
        if (few.begun(top)) few.spread(top, more);
        for (int i = 0; i < 2; ++i) boxes[i] = joined(boxes[i], more[i], MergeWeights<Real>{});
        rows.template write<Constrained::kAny>(plan, operand, strip, planes, shared, top, loaded, boxes);
      }
    }
  }

 private:
  template <Constrained constrained>
  static __device__ __forceinline__ void march_one_size(const Plan& plan, const Operand& operand, const Strip& strip,
                                                        const WindowShared<Real>& shared) {
    const Planes planes = planes_of<Images, columns>(operand, strip);
    const Rows rows(strip, shared);
    Larger<constrained> windows(plan, strip, planes, 0, plan.window_count, shared, shared.rings);
#pragma unroll 1
    for (int top = rows.first; top < strip.end_row; top += 2) {
      Coefficients boxes[2];
      windows.measure(strip, planes, shared, top, boxes);
      if (!windows.begun(top)) continue;
      const auto loaded = rows.load(strip, planes, top);
      windows.spread(top, boxes);
      rows.template write<constrained>(plan, operand, strip, planes, shared, top, loaded, boxes);
    }
  }

  struct LoadedPair {
    LoadedRow<Images, columns, channels> of[2];
  };

  // The rows whose gradient is written.
  struct Rows {
    int first;  // in which the first patches that reach the strip could begin, or the row above it
    Real coefficients[channels];

    __device__ __forceinline__ Rows(const Strip& strip, const WindowShared<Real>& shared) {
      const int above = max(strip.first_row - size + 1, 0) - size + 1;
      first = above - (above + size - 1) % 2;
#pragma unroll
      for (int c = 0; c < channels; ++c) {
        const int which = shared.squared_errors > 1 ? c : 0;
        coefficients[c] = shared.squared_errors > 0 ? static_cast<Real>(shared.squared_error[which]) : Real{0};
      }
    }

    __device__ __forceinline__ LoadedPair load(const Strip& strip, const Planes& planes, int top) const {
      LoadedPair loaded;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        loaded.of[i].template load<kLast>(planes, min(max(top + i, strip.first_row), strip.end_row - 1));
      }
      return loaded;
    }

    template <Constrained constrained>
    __device__ __forceinline__ void write(const Plan& plan, const Operand& operand, const Strip& strip,
                                          const Planes& planes, const WindowShared<Real>& shared, int top,
                                          const LoadedPair& loaded, const Coefficients (&boxes)[2]) const {
      if (top + 1 < strip.first_row) return;
      Real squares[channels] = {};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (top + i < strip.first_row || top + i >= strip.end_row) continue;
        write_row<Images, constrained>(operand, strip, planes, top + i, loaded.of[i].pixels(planes), boxes[i],
                                       coefficients, squares, plan, shared);
      }
      double* const sums = shared.sums + plan.window_count * kWarpSize;
      if (shared.squared_errors == 1) {
        Real sum = squares[0];
#pragma unroll
        for (int c = 1; c < channels; ++c) sum += squares[c];
        sums[0] += static_cast<double>(sum);
      } else if (shared.squared_errors > 1) {
#pragma unroll
        for (int c = 0; c < channels; ++c) sums[c * kWarpSize] += static_cast<double>(squares[c]);
      }
    }
  };
};

// A block's part of the lines of strips.
template <class March>
__device__ __forceinline__ void windows(const Plan& plan, const BlockPart& part, Shared& block) {
  const Operand& operand = plan.operands[0];
  const Strips& strips = plan.strips;
  const WindowShared<typename March::Real> shared = window_shared<typename March::Real>(plan, block);
  prepare_windows(plan, operand, part, shared);
  if (warp() < strips.warps) {
    for (int s = 0; s < strips.sums; ++s) shared.sums[s * kWarpSize] = 0;
    for (std::int64_t i = part.index * strips.warps + warp(); i < operand.elements;
         i += operand.blocks * strips.warps) {
      // Fewer strips than 2^32 fit a device.
      const unsigned stretch = static_cast<unsigned>(i) / static_cast<unsigned>(strips.across);
      const int across = static_cast<int>(static_cast<unsigned>(i) - stretch * static_cast<unsigned>(strips.across));
      int rows = strips.rows;
      for (std::int64_t at = static_cast<std::int64_t>(stretch) * strips.rows; rows > 0 && at < strips.length;) {
        const LinePosition position = position_in_line(strips, across, at);
        const int height = static_cast<int>(operand.outer[1].size), taken = min(rows, strips.line - position.row);
        if (position.row < height) {
          const int end = min(position.row + taken, height);
          March::march(plan, operand, strip_of<March::kColumns>(plan, operand, part.channel, position, end), shared);
        }
        at += taken;
        rows -= taken;
      }
    }
  }
  hand_in_windows(plan, operand, part, shared);
}

}  // namespace geco::cuda

// Windowed statistics of a tile and the gradient of what is made of them, row by row:
//
//   x_hat, x -> moments of a pixel over its channels -> of a window along the row -> of a patch, down the rows
//   -> values, coefficients a, b, d -> summed over the patches that cover a pixel, down the rows -> along the row
//   -> gradient
//
// Windows down the rows come from rings of rows, one ring for each power of two. What a row holds follows from the rows
// it depends on, always in the same way: how an image is cut into tiles changes no bit.
#pragma once

#include <algorithm>
#include <type_traits>

#include "cpu/isa/patches/along.inl"
#include "cpu/isa/patches/gradient.inl"
#include "cpu/isa/patches/scratch.inl"
#include "cpu/isa/patches/sweep.h"
#include "cpu/isa/patches/tensors.inl"
#include "cpu/isa/patches/tile.inl"
#include "cpu/isa/vectors.inl"
#include "math/patch.h"

namespace geco::cpu {
namespace {

template <class Real>
class TileSweep {
 public:
  TileSweep(const Sweep& sweep, char* memory)
      : sweep_(sweep),
        geometry_(*sweep.geometry),
        patch_(geometry_.patch),
        stride_(geometry_.stride),
        short_levels_(short_levels<Real>(patch_)),
        tile_(sweep, short_levels_ < 0 ? patch_ - 1 : round_up(patch_ - 1, kWidth)),
        in_place_(sweep),
        arena_(memory),
        scratch_(arena_, sweep, in_place_),
        tensors_(sweep, tile_, in_place_, scratch_),
        pitch_(scratch_.pitch),
        lead_(sweep.first_column - tile_.first_input),
        along_(patch_, geometry_.levels, static_cast<double>(sweep.channels)),
        down_(patch_, geometry_.levels, static_cast<double>(sweep.channels * patch_)) {
    for (int r = 0; r < sweep.rule_count; ++r) rules_[r] = rule_of(sweep.rules[r]);
    std::fill_n(scratch_.value_sums, sweep.rule_count, Doubles{});
    std::fill_n(scratch_.square_sums, sweep.channels, Doubles{});
    std::fill_n(scratch_.cover[0], kCoefficientMaps * pitch_, Real{0});
    cover_parts_ = along_.parts;
    for (int p = 0; p < along_.parts.count; ++p) {
      along_.parts.rows[p] = scratch_.along[along_.levels[p]] + along_.offsets[p];
      cover_parts_.rows[p] = scratch_.cover[along_.levels[p]] + along_.offsets[p];
    }
  }

  void run() {
    std::int64_t next = sweep_.first_row;
    for (std::int64_t row = tile_.first_input_row; row < tile_.last_input_row; ++row) {
      tensors_.ask_for_rows_after(row);
      if (scratch_.keeps_rows) tensors_.copy_row(row);
      const std::int64_t patch_row = row - patch_ + 1;
      if (tile_.measures(row, patch_) && geometry_.needs(0, row)) {
        windows_along(row);
        windows_down(row);
      }
      if (next <= patch_row && next < sweep_.last_row) write_pixels(next++);
    }
    while (next < sweep_.last_row) write_pixels(next++);
    close_value_block(-1);
  }

  static std::int64_t scratch_bytes(const Sweep& sweep) {
    Arena arena(nullptr);
    const Scratch<Real> scratch(arena, sweep, InPlace<Real>(sweep));
    return arena.used();
  }

 private:
  using V = Vector<Real>;
  static constexpr int kWidth = kLanesOf<Real>;

  PatchRule<Real> rule_of(const WindowRule& rule) const {
    const double numbers = static_cast<double>(sweep_.channels * patch_ * patch_);
    PatchRule<Real> result;
    result.per_number = static_cast<Real>(1.0 / numbers);
    result.eps = representable_eps<Real>(rule.eps);
    result.factor = static_cast<Real>(rule.factor);
    return result;
  }

  // Moments of windows of `patch` pixels along the row, where patches begin.
  void windows_along(std::int64_t row) {
    tensors_.find_rows(row, tile_.first_input);
    Real* const out = scratch_.moments[0].begin(row);
    Real* const dense = stride_ == 1 ? out : scratch_.dense;
    switch (sweep_.channels) {
      case 1: dense_windows_along<1>(row, dense); break;
      case 3: dense_windows_along<3>(row, dense); break;
      default: dense_windows_along<0>(row, dense);
    }
    if (stride_ > 1) keep_every(dense + tile_.first_patch - tile_.first_input, stride_, pitch_, out, tile_.patches);
  }

  template <int kChannels>
  void dense_windows_along(std::int64_t row, Real* out) {
    const ImageRow<Real, kChannels> pixels = tensors_.template row<kChannels>();
    if (short_levels_ == 0 || (kGrowsInRegisters && short_levels_ > 0)) {
      with_short_levels<Real>(short_levels_, [&](auto levels) {
        short_windows<levels()>(pixels, tile_.inputs, along_.weights, pitch_, out);
      });
      return;
    }
    short_windows<0>(pixels, tile_.inputs, along_.weights, pitch_, scratch_.along[0]);
    for (int k = 0; k < geometry_.levels; ++k) {
      const std::int64_t half = std::int64_t{1} << k;
      merge_rows(scratch_.along[k], scratch_.along[k] + half, pitch_, along_.weights[k], scratch_.along[k + 1],
                 tile_.inputs - 2 * half + 1);
    }
    if (!measures_power(row)) merge_parts(along_.parts, pitch_, out, tile_.inputs - patch_ + 1);
  }

  // The windows of 1, 2, 4, ... rows that end with a row. Each is merged from the one of half its size before it and
  // the one that ends there, which stays in registers.
  struct Ending {
    int count = 1;                    // of sizes
    Real* rows[kMostLevels];          // where they are kept, by level
    const Real* before[kMostLevels];  // of the same size, the one that each follows
  };

  Ending windows_ending(std::int64_t row) {
    Ending ending;
    ending.rows[0] = scratch_.moments[0].at(row);
    for (int k = 0; k < geometry_.levels; ++k) {
      const std::int64_t start = row + 1 - (std::int64_t{2} << k);
      if (start < tile_.first_patch_row || !geometry_.needs(k + 1, start)) break;
      ending.before[k] = scratch_.moments[k].at(start);
      ending.rows[ending.count++] = scratch_.moments[k + 1].begin(start);
    }
    return ending;
  }

  // Down the rows, from windows along them: windows that end with this row, and the patches that do.
  void windows_down(std::int64_t row) {
    const Ending ending = windows_ending(row);
    const std::int64_t patch_row = row - patch_ + 1;
    if (patch_row >= tile_.first_patch_row && patch_row % stride_ == 0) {
      measure(patch_row, ending);
    } else if (ending.count > 1) {
      for (std::int64_t i = 0; i < tile_.patches; i += kWidth) merge_down(ending, i);
    }
  }

  // Returns the largest.
  GECO_HD Moments<V> merge_down(const Ending& ending, std::int64_t i) const {
    Moments<V> moments = load_moments(ending.rows[0] + i, pitch_);
    for (int k = 1; k < ending.count; ++k) {
      moments = merged(load_moments(ending.before[k - 1] + i, pitch_), moments, down_.weights[k - 1]);
      store_moments(ending.rows[k] + i, pitch_, moments);
    }
    return moments;
  }

  // A row of patches: the values of the constraints, and the coefficients of their gradient.
  void measure(std::int64_t row, const Ending& ending) {
    Parts<Real>& parts = down_.parts;
    for (int p = 0; p < parts.count; ++p) {
      parts.rows[p] = scratch_.moments[down_.levels[p]].at(row + down_.offsets[p]);
    }
    Real* const values = scratch_.values;
    const Reference<Real> from = {static_cast<Real>(sweep_.reference_hat), static_cast<Real>(sweep_.reference)};
    if (sweep_.rule_count == 1) {
      with_formula_of<VectorMath>(sweep_.rules[0].kind, [&](const auto& formula) {
        measure(row, ending, [formula, values, from, rule = rules_[0]](const Moments<V>& moments, std::int64_t i) {
          PatchCoefficients<V> coefficients;
          store<Real>(values + i, formula(moments, from, rule, coefficients));
          return coefficients;
        });
      });
    } else if (sweep_.rule_count == 2 && sweep_.rules[0].kind < sweep_.rules[1].kind) {
      measure_two(row, ending, from);
    } else {
      measure(row, ending, [&](const Moments<V>& moments, std::int64_t i) {
        PatchCoefficients<V> coefficients = {V{}, V{}, V{}};
        for (int r = 0; r < sweep_.rule_count; ++r) {
          with_formula_of<VectorMath>(sweep_.rules[r].kind, [&](const auto& formula) {
            PatchCoefficients<V> of_rule;
            store<Real>(values + r * pitch_ + i, formula(moments, from, rules_[r], of_rule));
            coefficients = coefficients + of_rule;
          });
        }
        return coefficients;
      });
    }
    if (row < sweep_.first_row) return;
    if (row / kBlockRows != value_block_) close_value_block(row / kBlockRows);
    for (int r = 0; r < sweep_.rule_count; ++r) {
      scratch_.value_sums[r] +=
          folded(sum_of_row(values + r * pitch_ + tile_.first_counted, tile_.patches - tile_.first_counted));
    }
  }

  // Two kinds: a switch for each vector, as any number of constraints has it, would cost a tenth.
  void measure_two(std::int64_t row, const Ending& ending, const Reference<Real>& from) {
    Real *const values = scratch_.values, *const second_values = values + pitch_;
    with_formula_of<VectorMath>(sweep_.rules[0].kind, [&](const auto& first) {
      with_formula_of<VectorMath>(sweep_.rules[1].kind, [&](const auto& second) {
        if constexpr (kind_of(std::decay_t<decltype(first)>{}) < kind_of(std::decay_t<decltype(second)>{})) {
          measure(row, ending, [=, rule = rules_[0], second_rule = rules_[1]](const Moments<V>& moments, auto i) {
            PatchCoefficients<V> of_first, of_second;
            store<Real>(values + i, first(moments, from, rule, of_first));
            store<Real>(second_values + i, second(moments, from, second_rule, of_second));
            return of_first + of_second;
          });
        }
      });
    });
  }

  // Hands over the sums of a block and begins with the next.
  void close_value_block(std::int64_t next) {
    for (int r = 0; r < sweep_.rule_count; ++r) {
      if (value_block_ >= 0) sweep_.value_sums[r * sweep_.blocks + value_block_] += sum(scratch_.value_sums[r]);
      scratch_.value_sums[r] = Doubles{};
    }
    value_block_ = next;
  }

  // Sums of the coefficients of 1, 2, 4, ... neighbouring rows of patches that end with one, made likewise.
  Ending cover_ending(std::int64_t patch_row) {
    Ending ending;
    ending.count = 0;
    if (!sweep_.gradient.data) return ending;
    ending.rows[ending.count++] = scratch_.coefficients[0].begin(patch_row);
    for (int k = 0; k < geometry_.cover_levels; ++k) {
      const std::int64_t start = patch_row + 1 - (std::int64_t{2} << k);
      if (start < tile_.first_patch_row / stride_) break;
      ending.before[k] = scratch_.coefficients[k].at(start);
      ending.rows[ending.count++] = scratch_.coefficients[k + 1].begin(start);
    }
    return ending;
  }

  template <class Apply>
  GECO_HD void measure(std::int64_t row, const Ending& ending, const Apply& apply) {
    const Ending cover = cover_ending(row / stride_);
    if (measures_power(row + patch_ - 1)) {
      if (ending.count == 2) measure_power<2>(row, ending, cover, apply);
      if (ending.count == 3) measure_power<3>(row, ending, cover, apply);
      if (ending.count == 4) measure_power<4>(row, ending, cover, apply);
      return;
    }
    const FarFromReference<Real> is_far(rules_[0].per_number);
    Mask<Real> far = {};
    for_each_vector([&](std::int64_t i, const auto& keep) {
      merge_down(ending, i);
      const Moments<V> moments = down_.parts.merged(pitch_, i);
      far |= (Mask<Real>)keep((V)is_far(moments));
      const PatchCoefficients<V> c = apply(moments, i);
      PatchCoefficients<V> sum = {keep(c.a), keep(c.b), keep(c.d)};
      for (int k = 0; k < cover.count; ++k) {
        if (k > 0) sum = load_coefficients(cover.before[k - 1] + i, pitch_) + sum;
        store_coefficients(cover.rows[k] + i, pitch_, sum);
      }
    });
    note_far(row, far);
  }

  // Has the rows in which patches lie too far from the reference computed again.
  void note_far(std::int64_t row, Mask<Real> far) const {
    if (row >= sweep_.first_row && sweep_.far_blocks && any(far)) sweep_.far_blocks[row / kBlockRows] = 1;
  }

  // Calls `function` for every vector of a row of patches, and with what to keep of it: sums along the row run over the
  // end.
  template <class Function>
  GECO_HD void for_each_vector(const Function& function) const {
    const std::int64_t patches = tile_.patches;
    std::int64_t i = 0;
    for (; i + kWidth <= patches; i += kWidth) function(i, [](V values) { return values; });
    if (i < patches) function(i, [rest = patches - i](V values) { return first(values, rest); });
  }

  // Whether the patches that end with a row are measured in one pass: patches of 4, 8 or 16 at every pixel, when so
  // many of their rows have gone before that the last half of a patch and of its cover is the largest window ending
  // there.
  bool measures_power(std::int64_t row) const {
    const bool has_size = patch_ == 4 || patch_ == 8 || patch_ == 16;
    return has_size && stride_ == 1 && sweep_.gradient.data &&
           row - patch_ + 1 >= tile_.first_patch_row + patch_ / 2 - 1;
  }

  template <int kSizes, class Apply>
  GECO_HD void measure_power(std::int64_t row, const Ending& ending, const Ending& cover, const Apply& apply) {
    constexpr std::int64_t kHalf = std::int64_t{1} << (kSizes - 1);
    const std::int64_t pitch = pitch_, reach = row - patch_ + 1;
    const bool along_is_whole = kGrowsInRegisters && short_levels_ > 0;
    const Real* const half_along = scratch_.along[kSizes - 1];
    const MergeWeights<Real> along_weights = along_.weights[kSizes - 1];
    Real *rows[kSizes], *cover_rows[kSizes];
    const Real *before[kSizes], *cover_before[kSizes];
    MergeWeights<Real> weights[kSizes];
    for (int k = 0; k < kSizes; ++k) {
      rows[k] = ending.rows[k];
      cover_rows[k] = cover.rows[k];
      before[k] = k + 1 < kSizes ? ending.before[k] : down_.parts.rows[0];
      cover_before[k] = cover.before[k];
      weights[k] = down_.weights[k];
    }
    // All patches that cover a row of pixels, unless it lies at an edge of the image.
    Real* sums = nullptr;
    if (short_levels_ > 0 && reach >= tile_.first_patch_row) {
      sums = scratch_.cover[0];
      cover_first_ = reach;
      cover_last_ = row;
      cover_before[kSizes - 1] = scratch_.coefficients[kSizes - 1].at(reach);
    }
    const auto moments_of_patches = [&](std::int64_t i) {
      Moments<V> moments = along_is_whole ? load_moments(rows[0] + i, pitch)
                                          : merged(load_moments(half_along + i, pitch),
                                                   load_moments(half_along + kHalf + i, pitch), along_weights);
#pragma GCC unroll 4
      for (int k = 0; k < kSizes; ++k) {
        if (k > 0 || !along_is_whole) store_moments(rows[k] + i, pitch, moments);
        moments = merged(load_moments(before[k] + i, pitch), moments, weights[k]);
      }
      return moments;
    };
    const FarFromReference<Real> is_far(rules_[0].per_number);
    Mask<Real> far = {};
    const auto measure_patches = [&](std::int64_t i, const Moments<V>& moments, const auto& keep) {
      far |= (Mask<Real>)keep((V)is_far(moments));
      const PatchCoefficients<V> c = apply(moments, i);
      PatchCoefficients<V> sum = {keep(c.a), keep(c.b), keep(c.d)};
#pragma GCC unroll 4
      for (int k = 0; k < kSizes; ++k) {
        if (k > 0) sum = load_coefficients(cover_before[k - 1] + i, pitch) + sum;
        store_coefficients(cover_rows[k] + i, pitch, sum);
      }
      if (sums == nullptr) return;
      store_coefficients(sums + i, pitch, load_coefficients(cover_before[kSizes - 1] + i, pitch) + sum);
    };
    if constexpr (kGrowsInRegisters) {
      for_each_vector([&](std::int64_t i, const auto& keep) { measure_patches(i, moments_of_patches(i), keep); });
    } else {
      // One after the other: a vector of all this waits for itself longer than processors look ahead.
      Real* const patches = scratch_.along[0];
      for_each_vector([&](std::int64_t i, const auto&) { store_moments(patches + i, pitch, moments_of_patches(i)); });
      for_each_vector(
          [&](std::int64_t i, const auto& keep) { measure_patches(i, load_moments(patches + i, pitch), keep); });
    }
    note_far(row, far);
  }

  // Finds the rows whose sum is that of all patches that cover a row of pixels.
  void find_cover(std::int64_t row) {
    const std::int64_t reach = row - patch_ + 1;
    const std::int64_t first = reach <= 0 ? 0 : (reach + stride_ - 1) / stride_;
    const std::int64_t last = tile_.patches == 0 ? -1 : std::min(row, sweep_.height - patch_) / stride_;
    if (first == cover_first_ && last == cover_last_) return;
    cover_first_ = first;
    cover_last_ = last;
    CoverRows<Real> cover;
    cover.count = 0;
    for_each_part(last - first + 1, geometry_.cover_levels, [&](int level, std::int64_t offset) {
      cover.rows[cover.count++] = scratch_.coefficients[level].at(first + offset);
    });
    if (short_levels_ < 0) {
      sum_cover(cover, patch_ - 1 - lead_);
      grow_along();
    } else {
      sum_cover(cover, 0);
    }
  }

  // Makes them one row of all columns, after some that have no patches.
  void sum_cover(const CoverRows<Real>& cover, std::int64_t before) {
    const std::int64_t begin = before + tile_.first_patch - tile_.first_input;
    Real* const down = stride_ == 1 ? scratch_.cover[0] + begin : scratch_.dense;
    sum_rows(cover, pitch_, down, tile_.patches);
    if (stride_ > 1) spread_out(down, stride_, pitch_, scratch_.cover[0] + begin, tile_.patches);
  }

  // Sums of 2, 4, ... neighbours of the cover, up to what its parts need.
  void grow_along() {
    for (int k = 0; k < geometry_.levels; ++k) {
      const std::int64_t half = std::int64_t{1} << k;
      add_rows(scratch_.cover[k], scratch_.cover[k] + half, pitch_, scratch_.cover[k + 1],
               tile_.pixels + patch_ - 2 * half);
    }
  }

  // The gradient of a row of pixels, once all patches that cover it are known, and its squared error.
  void write_pixels(std::int64_t row) {
    const bool with_gradient = sweep_.gradient.data != nullptr;
    if (!with_gradient && !sweep_.squared_error_coefficients) return;
    tensors_.find_rows(row, sweep_.first_column);
    if (with_gradient) {
      find_cover(row);
      tensors_.find_gradient(row);
    }
    switch (sweep_.channels) {
      case 1: write_pixels<1>(); break;
      case 3: write_pixels<3>(); break;
      default: write_pixels<0>();
    }
    if (!in_place_.gradient) {
      write_row(scratch_.gradient, pitch_, sweep_.gradient, sweep_.channels, row, sweep_.first_column, tile_.pixels);
    }
    if ((row + 1) % kBlockRows == 0 || row + 1 == sweep_.last_row) close_square_block(row / kBlockRows);
  }

  void close_square_block(std::int64_t block) {
    if (!sweep_.squared_error_coefficients) return;
    for (std::int64_t c = 0; c < sweep_.channels; ++c) {
      sweep_.squared_error_sums[c * sweep_.blocks + block] += sum(scratch_.square_sums[c]);
      scratch_.square_sums[c] = Doubles{};
    }
  }

  template <int kChannels>
  void write_pixels() {
    const PixelOutput<Real> output = {sweep_.gradient.data ? scratch_.gradient_rows : nullptr, sweep_.adds,
                                      sweep_.squared_error_coefficients, scratch_.square_sums};
    if constexpr (kChannels > 0) {
      if (output.gradient && !output.adds) {
        if (output.coefficients) return write_pixels<kChannels, PixelWork::kSetWithSquares>(output);
        return write_pixels<kChannels, PixelWork::kSet>(output);
      }
    }
    write_pixels<kChannels, PixelWork::kAny>(output);
  }

  template <int kChannels, PixelWork kWork>
  void write_pixels(const PixelOutput<Real>& output) {
    PixelRow<Real, kChannels, kWork> pixels(tensors_.template row<kChannels>(), output);
    if (short_levels_ >= 0) {
      with_short_levels<Real>(short_levels_, [&](auto levels) {
        short_cover<levels()>(scratch_.cover[0], pitch_, lead_, tile_.pixels, pixels);
      });
    } else {
      long_cover(cover_parts_, pitch_, tile_.pixels, pixels);
    }
    pixels.finish();
  }

  const Sweep& sweep_;
  const WindowGeometry& geometry_;
  const std::int64_t patch_, stride_;
  const int short_levels_;  // of a patch that windows grow to in registers, otherwise -1
  const Tile tile_;
  const InPlace<Real> in_place_;
  Arena arena_;
  Scratch<Real> scratch_;
  TileTensors<Real> tensors_;
  const std::int64_t pitch_, lead_;
  Doubling<Real> along_, down_;
  Parts<Real> cover_parts_;
  PatchRule<Real> rules_[kMostRules];

  std::int64_t value_block_ = -1;                    // of the sums in scratch
  std::int64_t cover_first_ = -2, cover_last_ = -2;  // rows of patches in the cover
};

template <class Real>
std::int64_t sweep_scratch(const Sweep& sweep) {
  return TileSweep<Real>::scratch_bytes(sweep);
}

template <class Real>
void sweep_patches(const Sweep& sweep, char* scratch) {
  TileSweep<Real>(sweep, scratch).run();
}

}  // namespace
}  // namespace geco::cpu

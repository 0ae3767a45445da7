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
        pitch_(scratch_.pitch),
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
      if (scratch_.keeps_rows) copy_row(row);
      const std::int64_t patch_row = row - patch_ + 1;
      if (tile_.measures(row, patch_)) {
        if (geometry_.needs(0, row)) windows_along(row);
        grow_down(row);
        if (patch_row >= tile_.first_patch_row && patch_row % stride_ == 0) measure(patch_row);
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

  void copy_row(std::int64_t row) {
    const auto copy = [this, row](const Planes& planes, Ring<Real>& ring) {
      read_row(planes, sweep_.channels, row, tile_.first_input, ring.begin(row), pitch_, tile_.inputs);
    };
    if (!in_place_.prediction) copy(sweep_.prediction, scratch_.prediction);
    if (!in_place_.target) copy(sweep_.target, scratch_.target);
  }

  // Finds the channels of a row of both images, from `column` on.
  void find_rows(std::int64_t row, std::int64_t column) {
    if (!scratch_.keeps_rows) copy_row(row);
    for (std::int64_t c = 0; c < sweep_.channels; ++c) {
      const std::int64_t copied = c * pitch_ + column - tile_.first_input;
      scratch_.prediction_rows[c] = in_place_.prediction ? numbers_at<Real>(sweep_.prediction, c, row, column)
                                                         : scratch_.prediction.at(row) + copied;
      scratch_.target_rows[c] =
          in_place_.target ? numbers_at<Real>(sweep_.target, c, row, column) : scratch_.target.at(row) + copied;
    }
  }

  template <int kChannels>
  ImageRow<Real, kChannels> image_row() const {
    return {scratch_.prediction_rows, scratch_.target_rows, sweep_.channels, static_cast<Real>(sweep_.reference_hat),
            static_cast<Real>(sweep_.reference)};
  }

  // Moments of windows of `patch` pixels along the row, where patches begin.
  void windows_along(std::int64_t row) {
    find_rows(row, tile_.first_input);
    Real* const out = scratch_.moments[0].begin(row);
    Real* const dense = stride_ == 1 ? out : scratch_.dense;
    switch (sweep_.channels) {
      case 1: dense_windows_along<1>(dense); break;
      case 3: dense_windows_along<3>(dense); break;
      default: dense_windows_along<0>(dense);
    }
    if (stride_ > 1) keep_every(dense + tile_.first_patch - tile_.first_input, stride_, pitch_, out, tile_.patches);
  }

  template <int kChannels>
  void dense_windows_along(Real* out) {
    const ImageRow<Real, kChannels> row = image_row<kChannels>();
    if (short_levels_ >= 0) {
      with_short_levels<Real>(
          short_levels_, [&](auto levels) { short_windows<levels()>(row, tile_.inputs, along_.weights, pitch_, out); });
      return;
    }
    short_windows<0>(row, tile_.inputs, along_.weights, pitch_, scratch_.along[0]);
    for (int k = 0; k < geometry_.levels; ++k) {
      const std::int64_t half = std::int64_t{1} << k;
      merge_rows(scratch_.along[k], scratch_.along[k] + half, pitch_, along_.weights[k], scratch_.along[k + 1],
                 tile_.inputs - 2 * half + 1);
    }
    merge_parts(along_.parts, pitch_, out, tile_.inputs - patch_ + 1);
  }

  // Windows of 2, 4, ... rows that end with this one.
  void grow_down(std::int64_t row) {
    for (int k = 0; k < geometry_.levels; ++k) {
      const std::int64_t half = std::int64_t{1} << k, start = row - 2 * half + 1;
      if (start < tile_.first_patch_row) return;
      if (!geometry_.needs(k + 1, start)) continue;
      merge_rows(scratch_.moments[k].at(start), scratch_.moments[k].at(start + half), pitch_, down_.weights[k],
                 scratch_.moments[k + 1].begin(start), tile_.patches);
    }
  }

  // A row of patches: the values of the constraints, and the coefficients of their gradient.
  void measure(std::int64_t row) {
    Parts<Real>& parts = down_.parts;
    for (int p = 0; p < parts.count; ++p) {
      parts.rows[p] = scratch_.moments[down_.levels[p]].at(row + down_.offsets[p]);
    }
    Real* const out = scratch_.coefficients[0].begin(row / stride_);
    Real* const values = scratch_.values;
    const Reference<Real> from = {static_cast<Real>(sweep_.reference_hat), static_cast<Real>(sweep_.reference)};
    if (sweep_.rule_count == 1) {
      with_formula_of<VectorMath>(sweep_.rules[0].kind, [&](const auto& formula) {
        measure(parts, out, [&](const Moments<V>& moments, PatchCoefficients<V>& coefficients, auto i) {
          store<Real>(values + i, formula(moments, from, rules_[0], coefficients));
        });
      });
    } else if (sweep_.rule_count == 2 && sweep_.rules[0].kind < sweep_.rules[1].kind) {
      measure_two(parts, out, from);
    } else {
      measure(parts, out, [&](const Moments<V>& moments, PatchCoefficients<V>& coefficients, auto i) {
        for (int r = 0; r < sweep_.rule_count; ++r) {
          with_formula_of<VectorMath>(sweep_.rules[r].kind, [&](const auto& formula) {
            PatchCoefficients<V> of_rule;
            store<Real>(values + r * pitch_ + i, formula(moments, from, rules_[r], of_rule));
            coefficients = coefficients + of_rule;
          });
        }
      });
    }
    if (sweep_.gradient.data) grow_cover(row / stride_);
    if (row < sweep_.first_row) return;
    if (row / kBlockRows != value_block_) close_value_block(row / kBlockRows);
    for (int r = 0; r < sweep_.rule_count; ++r) {
      scratch_.value_sums[r] +=
          folded(sum_of_row(values + r * pitch_ + tile_.first_counted, tile_.patches - tile_.first_counted));
    }
  }

  // Two kinds: a switch for each vector, as any number of constraints has it, would cost a tenth.
  void measure_two(const Parts<Real>& parts, Real* out, const Reference<Real>& from) {
    with_formula_of<VectorMath>(sweep_.rules[0].kind, [&](const auto& first) {
      with_formula_of<VectorMath>(sweep_.rules[1].kind, [&](const auto& second) {
        if constexpr (kind_of(std::decay_t<decltype(first)>{}) < kind_of(std::decay_t<decltype(second)>{})) {
          measure(parts, out, [&](const Moments<V>& moments, PatchCoefficients<V>& coefficients, auto i) {
            PatchCoefficients<V> of_first, of_second;
            store<Real>(scratch_.values + i, first(moments, from, rules_[0], of_first));
            store<Real>(scratch_.values + pitch_ + i, second(moments, from, rules_[1], of_second));
            coefficients = of_first + of_second;
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

  template <class Apply>
  GECO_HD void measure(const Parts<Real>& parts, Real* out, const Apply& apply) {
    std::int64_t i = 0;
    for (; i + kWidth <= tile_.patches; i += kWidth) measure(parts, out, apply, i, [](V values) { return values; });
    // Sums along the row run over the end.
    if (i < tile_.patches)
      measure(parts, out, apply, i, [rest = tile_.patches - i](V values) { return first(values, rest); });
  }

  template <class Apply, class Keep>
  GECO_HD void measure(const Parts<Real>& parts, Real* out, const Apply& apply, std::int64_t i, const Keep& keep) {
    PatchCoefficients<V> coefficients = {V{}, V{}, V{}};
    apply(parts.merged(pitch_, i), coefficients, i);
    store<Real>(out + i, keep(coefficients.a));
    store<Real>(out + pitch_ + i, keep(coefficients.b));
    store<Real>(out + 2 * pitch_ + i, keep(coefficients.d));
  }

  // Sums of the coefficients of 2, 4, ... neighbouring rows of patches that end with this one.
  void grow_cover(std::int64_t patch_row) {
    for (int k = 0; k < geometry_.cover_levels; ++k) {
      const std::int64_t half = std::int64_t{1} << k, start = patch_row - 2 * half + 1;
      if (start < tile_.first_patch_row / stride_) return;
      add_rows(scratch_.coefficients[k].at(start), scratch_.coefficients[k].at(start + half), pitch_,
               scratch_.coefficients[k + 1].begin(start), tile_.patches);
    }
  }

  // Finds the rows whose sum is that of all patches that cover a row of pixels.
  void find_cover(std::int64_t row) {
    const std::int64_t reach = row - patch_ + 1;
    const std::int64_t first = reach <= 0 ? 0 : (reach + stride_ - 1) / stride_;
    const std::int64_t last = tile_.patches == 0 ? -1 : std::min(row, sweep_.height - patch_) / stride_;
    if (first == cover_first_ && last == cover_last_) return;
    cover_first_ = first;
    cover_last_ = last;
    cover_.count = 0;
    for_each_part(last - first + 1, geometry_.cover_levels, [&](int level, std::int64_t offset) {
      cover_.rows[cover_.count++] = scratch_.coefficients[level].at(first + offset);
    });
    cover_.columns = tile_.patches;
    cover_.lead = sweep_.first_column - tile_.first_input;
    if (short_levels_ < 0) {
      sum_cover(patch_ - 1 - cover_.lead);
      grow_along();
    } else if (stride_ > 1) {
      sum_cover(0);
      cover_.columns = cover_.lead + tile_.pixels;
    }
  }

  // Makes them one row of all columns, after some that have no patches.
  void sum_cover(std::int64_t before) {
    const std::int64_t begin = before + tile_.first_patch - tile_.first_input;
    Real* const down = stride_ == 1 ? scratch_.cover[0] + begin : scratch_.dense;
    sum_rows(cover_, pitch_, down, tile_.patches);
    if (stride_ > 1) spread_out(down, stride_, pitch_, scratch_.cover[0] + begin, tile_.patches);
    cover_.rows[0] = scratch_.cover[0];
    cover_.count = 1;
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
    find_rows(row, sweep_.first_column);
    if (with_gradient) {
      find_cover(row);
      find_gradient(row);
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

  void find_gradient(std::int64_t row) {
    for (std::int64_t c = 0; c < sweep_.channels; ++c) {
      scratch_.gradient_rows[c] = in_place_.gradient ? numbers_at<Real>(sweep_.gradient, c, row, sweep_.first_column)
                                                     : scratch_.gradient + c * pitch_;
    }
    if (in_place_.gradient || !sweep_.adds) return;
    read_row(sweep_.gradient, sweep_.channels, row, sweep_.first_column, scratch_.gradient, pitch_, tile_.pixels);
  }

  template <int kChannels>
  void write_pixels() {
    const PixelOutput<Real> output = {sweep_.gradient.data ? scratch_.gradient_rows : nullptr, sweep_.adds,
                                      sweep_.squared_error_coefficients, scratch_.square_sums};
    PixelRow<Real, kChannels> pixels(image_row<kChannels>(), output);
    if (short_levels_ >= 0) {
      with_short_levels<Real>(short_levels_,
                              [&](auto levels) { short_cover<levels()>(cover_, pitch_, tile_.pixels, pixels); });
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
  const std::int64_t pitch_;
  Doubling<Real> along_, down_;
  Parts<Real> cover_parts_;
  CoverRows<Real> cover_ = {};
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

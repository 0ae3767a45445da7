// The gradient of a row of pixels, from the coefficients of the patches that cover it, and its squared error.
#pragma once

#include "cpu/isa/patches/along.inl"

namespace geco::cpu {
namespace {

// What is written for a row of pixels.
template <class Real>
struct PixelOutput {
  Real* const* gradient;       // by channel; null: not wanted
  bool adds;                   // to what the gradient holds
  const double* coefficients;  // of the squared error, by channel; null: none
  Doubles* squares;            // squared differences are added to it, by channel
};

// What is done for a row of pixels, as far as compiled loops know it: nearly always a gradient is set.
enum class PixelWork { kSet, kSetWithSquares, kAny };

template <class Real, int kChannels, PixelWork kWork>
class PixelRow {
 public:
  using V = Vector<Real>;

  PixelRow(const ImageRow<Real, kChannels>& row, const PixelOutput<Real>& output)
      : row_(row), output_(output), reference_hat_(V{} + row.reference_hat()), reference_(V{} + row.reference()) {
    if constexpr (kChannels > 0) {
      for (int c = 0; c < kChannels; ++c) {
        gradient_[c] = output.gradient ? output.gradient[c] : nullptr;
        coefficients_[c] = V{} + (output.coefficients ? static_cast<Real>(output.coefficients[c]) : Real{0});
        squares_[c] = V{};
      }
    }
  }

  // Hands over the sums of squares; to be called once, at the end.
  void finish() {
    if constexpr (kChannels > 0 && kWork != PixelWork::kSet) {
      for (int c = 0; c < kChannels; ++c) output_.squares[c] += folded(squares_[c]);
    }
  }

  // The pixels of one vector, given the sums of the coefficients over their cover.
  template <class Load, class Store>
  GECO_HD void write(std::int64_t i, const PatchCoefficients<V>& cover, const Load& load_numbers,
                     const Store& store_numbers) {
    for (std::int64_t c = 0; c < row_.channels(); ++c) {
      const V x_hat = load_numbers(row_.prediction(c) + i), x = load_numbers(row_.target(c) + i);
      V gradient = ((x - reference_) * cover.a + cover.d) - (x_hat - reference_hat_) * cover.b;
      if (with_squares()) {
        const V difference = x_hat - x;
        add_squares(c, difference * difference);
        gradient += difference * coefficient(c);
      }
      if (kWork == PixelWork::kAny && !output_.gradient) continue;
      Real* const to = gradient_of(c) + i;
      if (kWork == PixelWork::kAny && output_.adds) gradient += load_numbers(to);
      store_numbers(to, gradient);
    }
  }

  // In whole vectors, and the rest of them at the end of the row.
  GECO_HD void write(std::int64_t i, const PatchCoefficients<V>& cover) {
    write(i, cover, [](const Real* from) { return load(from); }, [](Real* to, V values) { store<Real>(to, values); });
  }
  GECO_HD void write_some(std::int64_t i, const PatchCoefficients<V>& cover, std::int64_t rest) {
    write(
        i, cover, [rest](const Real* from) { return load_some(from, rest); },
        [rest](Real* to, V values) { store_some(to, values, rest); });
  }

 private:
  GECO_HD bool with_squares() const {
    return kWork == PixelWork::kSetWithSquares || (kWork == PixelWork::kAny && output_.coefficients);
  }
  GECO_HD void add_squares(std::int64_t c, V squares) {
    if constexpr (kChannels > 0) {
      squares_[c] += squares;
    } else {
      output_.squares[c] += folded(squares);
    }
  }
  GECO_HD V coefficient(std::int64_t c) const {
    if constexpr (kChannels > 0) return coefficients_[c];
    return V{} + static_cast<Real>(output_.coefficients[c]);
  }
  GECO_HD Real* gradient_of(std::int64_t c) const {
    if constexpr (kChannels > 0) return gradient_[c];
    return output_.gradient[c];
  }

  static constexpr int kKnown = kChannels > 0 ? kChannels : 1;
  const ImageRow<Real, kChannels> row_;
  const PixelOutput<Real> output_;
  const V reference_hat_, reference_;
  Real* gradient_[kKnown];
  V coefficients_[kKnown];
  V squares_[kKnown];
};

// Coefficients of a row of patches, or rows that add up to them.
template <class Real>
struct CoverRows {
  const Real* rows[kMostLevels + 1];
  int count;

  GECO_HD Vector<Real> at(std::int64_t i) const {
    Vector<Real> total = load(rows[0] + i);
    for (int p = 1; p < count; ++p) total += load(rows[p] + i);
    return total;
  }
};

// One row of the rows' sum; nothing beyond the last column's vector is written.
template <class Real>
void sum_rows(const CoverRows<Real>& cover, std::int64_t pitch, Real* out, std::int64_t count) {
  for (int m = 0; m < kCoefficientMaps; ++m) {
    for (std::int64_t i = m * pitch; i < m * pitch + count; i += kLanesOf<Real>) {
      store<Real>(out + i, cover.count > 0 ? cover.at(i) : Vector<Real>{});
    }
  }
}

// Sums over 2^kLevels neighbours that end with each number; `before` holds each level of the vector before.
template <int k, int kLevels, class Real>
GECO_HD Vector<Real> grown_sum(Vector<Real> values, Vector<Real>* before) {
  if constexpr (k == kLevels) {
    return values;
  } else {
    const Vector<Real> neighbours = shifted<kLanesOf<Real> - (1 << k)>(before[k], values);
    before[k] = values;
    return grown_sum<k + 1, kLevels, Real>(values + neighbours, before);
  }
}

// The cover of a pixel is 2^kLevels neighbours, no more than a vector: summed in registers along the row. `lead`: the
// column of the first pixel, zero, or whole vectors and no less than a patch.
template <int kLevels, class Real, class Pixels>
void short_cover(const Real* cover, std::int64_t pitch, std::int64_t lead, std::int64_t pixels, Pixels& out) {
  using V = Vector<Real>;
  constexpr int kWidth = kLanesOf<Real>;
  V before_a[kLevels + 1] = {}, before_b[kLevels + 1] = {}, before_d[kLevels + 1] = {};
  const auto sums_at = [&](std::int64_t i) {
    const Real* const at = cover + i;
    return PatchCoefficients<V>{grown_sum<0, kLevels, Real>(load(at), before_a),
                                grown_sum<0, kLevels, Real>(load(at + pitch), before_b),
                                grown_sum<0, kLevels, Real>(load(at + 2 * pitch), before_d)};
  };
  if (lead > 0) sums_at(lead - kWidth);  // reaches into the cover of the first pixels
  std::int64_t i = 0;
  for (; i + kWidth <= pixels; i += kWidth) out.write(i, sums_at(lead + i));
  if (i < pixels) out.write_some(i, sums_at(lead + i), pixels - i);
}

// Any cover, from the sums of its parts.
template <class Real, class Pixels>
void long_cover(const Parts<Real>& parts, std::int64_t pitch, std::int64_t pixels, Pixels& out) {
  const auto sums_at = [&](std::int64_t i) {
    return PatchCoefficients<Vector<Real>>{parts.summed(i), parts.summed(pitch + i), parts.summed(2 * pitch + i)};
  };
  std::int64_t i = 0;
  for (; i + kLanesOf<Real> <= pixels; i += kLanesOf<Real>) out.write(i, sums_at(i));
  if (i < pixels) out.write_some(i, sums_at(i), pixels - i);
}

}  // namespace
}  // namespace geco::cpu

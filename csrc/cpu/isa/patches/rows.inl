// Rows of maps and what is done to whole rows. Map m of a row lies m * pitch behind its beginning.
//
// Loops run in whole vectors beyond the last column: rows have the room, and what stands there is not used.
#pragma once

#include <cstdint>

#include "cpu/isa/patches/sweep.h"
#include "cpu/isa/vectors.inl"
#include "math/patch.h"

namespace geco::cpu {
namespace {

constexpr int kMomentMaps = 5, kCoefficientMaps = 3;
constexpr int kMostLevels = 40;

GECO_HD std::int64_t round_up(std::int64_t value, std::int64_t to) { return (value + to - 1) / to * to; }

// Rows by number. A row is kept until the one `capacity` behind it is begun; a ring of one row takes any number next.
template <class Real>
class Ring {
 public:
  Ring() = default;
  Ring(Real* rows, std::int64_t capacity, std::int64_t row_size)
      : rows_(rows), capacity_(capacity), row_size_(row_size) {}

  Real* begin(std::int64_t row) {
    if (newest_ < 0 || row - newest_ >= capacity_ || capacity_ == 1) {
      slot_ = 0;
    } else {
      slot_ += row - newest_;
      if (slot_ >= capacity_) slot_ -= capacity_;
    }
    newest_ = row;
    return rows_ + slot_ * row_size_;
  }

  Real* at(std::int64_t row) const {
    const std::int64_t slot = slot_ - (newest_ - row);
    return rows_ + (slot < 0 ? slot + capacity_ : slot) * row_size_;
  }

 private:
  Real* rows_ = nullptr;
  std::int64_t capacity_ = 0, row_size_ = 0;
  std::int64_t newest_ = -1, slot_ = 0;
};

template <class Real>
GECO_HD Moments<Vector<Real>> load_moments(const Real* row, std::int64_t pitch) {
  return {load(row), load(row + pitch), load(row + 2 * pitch), load(row + 3 * pitch), load(row + 4 * pitch)};
}

template <class Real>
GECO_HD void store_moments(Real* row, std::int64_t pitch, const Moments<Vector<Real>>& moments) {
  store<Real>(row, moments.mean_hat);
  store<Real>(row + pitch, moments.mean);
  store<Real>(row + 2 * pitch, moments.m2_hat);
  store<Real>(row + 3 * pitch, moments.m2);
  store<Real>(row + 4 * pitch, moments.co);
}

template <class Real>
GECO_HD PatchCoefficients<Vector<Real>> load_coefficients(const Real* row, std::int64_t pitch) {
  return {load(row), load(row + pitch), load(row + 2 * pitch)};
}

template <class Real>
GECO_HD void store_coefficients(Real* row, std::int64_t pitch, const PatchCoefficients<Vector<Real>>& coefficients) {
  store<Real>(row, coefficients.a);
  store<Real>(row + pitch, coefficients.b);
  store<Real>(row + 2 * pitch, coefficients.d);
}

// Which patches vary by so much less than they are away from the reference that float32 has too few digits for their
// means: 24 binary ones, of which 15 are to be left. Flat patches have none to lose, and float64 has enough.
template <class Real>
class FarFromReference {
 public:
  explicit FarFromReference(Real per_number) : limit_(kFar * kFar * per_number) {}

  GECO_HD Mask<Real> operator()(const Moments<Vector<Real>>& moments) const {
    if constexpr (sizeof(Real) == sizeof(double)) return Mask<Real>{};
    return is_far(moments.mean_hat, moments.m2_hat) | is_far(moments.mean, moments.m2);
  }

 private:
  static constexpr Real kFar = 512;

  GECO_HD Mask<Real> is_far(Vector<Real> mean, Vector<Real> m2) const {
    return (mean * mean > m2 * limit_) & (m2 != 0);
  }

  const Real limit_;
};

// Neighbouring windows that together are the one that is wanted.
template <class Real>
struct Parts {
  const Real* rows[kMostLevels + 1];
  MergeWeights<Real> weights[kMostLevels + 1];  // of a part with all that come before it
  int count = 0;

  GECO_HD Moments<Vector<Real>> merged(std::int64_t pitch, std::int64_t i) const {
    Moments<Vector<Real>> moments = load_moments(rows[0] + i, pitch);
    for (int p = 1; p < count; ++p) moments = geco::merged(moments, load_moments(rows[p] + i, pitch), weights[p]);
    return moments;
  }

  GECO_HD Vector<Real> summed(std::int64_t i) const {
    Vector<Real> total = load(rows[0] + i);
    for (int p = 1; p < count; ++p) total += load(rows[p] + i);
    return total;
  }
};

// How windows of `length` neighbours are merged, neighbours of so many `numbers` each.
template <class Real>
struct Doubling {
  MergeWeights<Real> weights[kMostLevels];  // of two windows of a level
  Parts<Real> parts;                        // without rows
  int levels[kMostLevels + 1];              // of the parts
  std::int64_t offsets[kMostLevels + 1];

  Doubling(std::int64_t length, int most_level, double numbers) {
    for (int k = 0; k <= most_level; ++k) {
      const double half = numbers * static_cast<double>(std::int64_t{1} << k);
      weights[k] = merge_weights<Real>(half, half);
    }
    double before = 0;
    for_each_part(length, most_level, [&](int level, std::int64_t offset) {
      const double here = numbers * static_cast<double>(std::int64_t{1} << level);
      levels[parts.count] = level;
      offsets[parts.count] = offset;
      parts.weights[parts.count++] = merge_weights<Real>(before, here);
      before += here;
    });
  }
};

template <class Real>
void merge_rows(const Real* first, const Real* second, std::int64_t pitch, MergeWeights<Real> weights, Real* out,
                std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += kLanesOf<Real>) {
    store_moments(out + i, pitch, merged(load_moments(first + i, pitch), load_moments(second + i, pitch), weights));
  }
}

template <class Real>
void merge_parts(const Parts<Real>& parts, std::int64_t pitch, Real* out, std::int64_t count) {
  if (parts.count == 2) return merge_rows(parts.rows[0], parts.rows[1], pitch, parts.weights[1], out, count);
  for (std::int64_t i = 0; i < count; i += kLanesOf<Real>) store_moments(out + i, pitch, parts.merged(pitch, i));
}

// Every stride-th column of moments, closed up.
template <class Real>
void keep_every(const Real* from, std::int64_t stride, std::int64_t pitch, Real* out, std::int64_t count) {
  for (int m = 0; m < kMomentMaps; ++m, from += pitch, out += pitch) {
    for (std::int64_t i = 0; i < count; ++i) out[i] = from[i * stride];
  }
}

// The way back, for coefficients.
template <class Real>
void spread_out(const Real* from, std::int64_t stride, std::int64_t pitch, Real* out, std::int64_t count) {
  for (int m = 0; m < kCoefficientMaps; ++m, from += pitch, out += pitch) {
    for (std::int64_t i = 0; i < count; ++i) out[i * stride] = from[i];
  }
}

template <class Real>
void add_rows(const Real* first, const Real* second, std::int64_t pitch, Real* out, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += kLanesOf<Real>) {
    const Vector<Real> a = load(first + i) + load(second + i);
    const Vector<Real> b = load(first + pitch + i) + load(second + pitch + i);
    const Vector<Real> d = load(first + 2 * pitch + i) + load(second + 2 * pitch + i);
    store<Real>(out + i, a);
    store<Real>(out + pitch + i, b);
    store<Real>(out + 2 * pitch + i, d);
  }
}

template <class Real>
Vector<Real> sum_of_row(const Real* values, std::int64_t count) {
  Vector<Real> total = {};
  std::int64_t i = 0;
  for (; i + kLanesOf<Real> <= count; i += kLanesOf<Real>) total += load(values + i);
  if (i < count) total += first(load(values + i), count - i);
  return total;
}

}  // namespace
}  // namespace geco::cpu

// From the pixels of a row to the moments of windows along it.
#pragma once

#include <type_traits>

#include "cpu/isa/patches/rows.inl"

namespace geco::cpu {
namespace {

// A row of both images by channel, and what is subtracted from each. kChannels: 0 if not known when compiled.
template <class Real, int kChannels>
class ImageRow {
 public:
  ImageRow(const Real* const* prediction, const Real* const* target, std::int64_t channels, Real reference_hat,
           Real reference)
      : channels_(channels), reference_hat_(reference_hat), reference_(reference) {
    if constexpr (kChannels == 0) {
      prediction_ = prediction;
      target_ = target;
    } else {
      for (int c = 0; c < kChannels; ++c) {
        prediction_[c] = prediction[c];
        target_[c] = target[c];
      }
    }
  }

  GECO_HD std::int64_t channels() const { return kChannels > 0 ? kChannels : channels_; }
  GECO_HD const Real* prediction(std::int64_t c) const { return prediction_[c]; }
  GECO_HD const Real* target(std::int64_t c) const { return target_[c]; }
  GECO_HD Real reference_hat() const { return reference_hat_; }
  GECO_HD Real reference() const { return reference_; }

 private:
  static constexpr int kKnown = kChannels == 0 ? 1 : kChannels;
  using Rows = std::conditional_t<kChannels == 0, const Real* const*, const Real* [kKnown]>;
  Rows prediction_, target_;
  const std::int64_t channels_;
  const Real reference_hat_, reference_;
};

// Over the channels of each pixel of a vector, from what they differ from the first: equal channels vary by nothing.
template <class Real, int kChannels, class Load>
GECO_HD Moments<Vector<Real>> moments_of_pixels(const ImageRow<Real, kChannels>& row, const Load& load_numbers) {
  using V = Vector<Real>;
  const V first_hat = load_numbers(row.prediction(0)), first = load_numbers(row.target(0));
  Moments<V> moments = {first_hat - row.reference_hat(), first - row.reference(), V{}, V{}, V{}};
  if (row.channels() == 1) return moments;
  const auto rest_hat = [&](std::int64_t c) { return load_numbers(row.prediction(c)) - first_hat; };
  const auto rest = [&](std::int64_t c) { return load_numbers(row.target(c)) - first; };
  V mean_hat = rest_hat(1), mean = rest(1);
  for (std::int64_t c = 2; c < row.channels(); ++c) {
    mean_hat += rest_hat(c);
    mean += rest(c);
  }
  const Real share = static_cast<Real>(1.0 / static_cast<double>(row.channels()));
  mean_hat *= share;
  mean *= share;
  moments.m2_hat = mean_hat * mean_hat;
  moments.m2 = mean * mean;
  moments.co = mean_hat * mean;
  for (std::int64_t c = 1; c < row.channels(); ++c) {
    const V gap_hat = rest_hat(c) - mean_hat, gap = rest(c) - mean;
    moments.m2_hat += gap_hat * gap_hat;
    moments.m2 += gap * gap;
    moments.co += gap_hat * gap;
  }
  moments.mean_hat += mean_hat;
  moments.mean += mean;
  return moments;
}

template <int n, class V>
GECO_HD Moments<V> shifted(const Moments<V>& first, const Moments<V>& second) {
  return {shifted<n>(first.mean_hat, second.mean_hat), shifted<n>(first.mean, second.mean),
          shifted<n>(first.m2_hat, second.m2_hat), shifted<n>(first.m2, second.m2), shifted<n>(first.co, second.co)};
}

// Grows windows of 2^kLevel neighbours, from level k on, to 2^kLevels; `next` holds each level of the vector behind.
template <int k, int kLevels, class V, class Real>
GECO_HD Moments<V> grown(const Moments<V>& moments, Moments<V>* next, const MergeWeights<Real>* weights) {
  if constexpr (k == kLevels) {
    return moments;
  } else {
    const Moments<V> neighbours = shifted<1 << k>(moments, next[k]);
    next[k] = moments;
    return grown<k + 1, kLevels>(merged(moments, neighbours, weights[k]), next, weights);
  }
}

// Windows of 2^kLevels pixels along a row, no longer than a vector: they grow in registers, from the last vector of the
// row to the first. kLevels = 0 gives the pixels.
template <int kLevels, class Real, int kChannels>
void short_windows(const ImageRow<Real, kChannels>& row, std::int64_t pixels, const MergeWeights<Real>* weights,
                   std::int64_t pitch, Real* out) {
  static_assert((1 << kLevels) <= kLanesOf<Real>);
  Moments<Vector<Real>> next[kLevels + 1] = {};
  std::int64_t i = pixels / kLanesOf<Real> * kLanesOf<Real>;
  if (i < pixels) {
    const auto load_rest = [i, rest = pixels - i](const Real* from) { return load_some(from + i, rest); };
    store_moments(out + i, pitch, grown<0, kLevels>(moments_of_pixels(row, load_rest), next, weights));
  }
  while (i > 0) {
    i -= kLanesOf<Real>;
    const auto load_all = [i](const Real* from) { return load(from + i); };
    store_moments(out + i, pitch, grown<0, kLevels>(moments_of_pixels(row, load_all), next, weights));
  }
}

// Whether windows along a row grow in registers. Those of a vector and of the one behind it, five moments a level, are
// more than sixteen registers hold.
#if defined(__AVX512F__)
constexpr bool kGrowsInRegisters = true;
#else
constexpr bool kGrowsInRegisters = false;
#endif

// The power of two of a patch that is short enough for registers, otherwise -1.
template <class Real>
int short_levels(std::int64_t patch) {
  for (int levels = 0; (1 << levels) <= kLanesOf<Real>; ++levels) {
    if ((1 << levels) == patch) return levels;
  }
  return -1;
}

// Calls `function` with the levels of a short patch as a constant.
template <class Real, class Function>
void with_short_levels(int levels, const Function& function) {
  constexpr int kLanesHere = kLanesOf<Real>;
  if (levels == 0) function(std::integral_constant<int, 0>());
  if (levels == 1) function(std::integral_constant<int, 1>());
  if constexpr (kLanesHere >= 4) {
    if (levels == 2) function(std::integral_constant<int, 2>());
  }
  if constexpr (kLanesHere >= 8) {
    if (levels == 3) function(std::integral_constant<int, 3>());
  }
  if constexpr (kLanesHere >= 16) {
    if (levels == 4) function(std::integral_constant<int, 4>());
  }
}

}  // namespace
}  // namespace geco::cpu

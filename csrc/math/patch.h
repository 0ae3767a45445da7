// Windowed statistics and the constraints made of them (Table 1 of "Taming VAEs": pNCC and local image statistics;
// SSIM). A new kind is a formula here, and a row of the table at the end.
//
// Everything is written for a number type N that may be a vector of numbers; Math knows its square root, its limits,
// and `unless_zero(condition, value)`: zero where the condition is. All three leave NaN what it is. A gradient is, with
// box() the sum over the patches that cover pixel j, and both images shifted by any reference of their own (the same
// for statistics and gradient),
//
//   d constraint / d x_hat[j] = x[j] * box(a)[j] - x_hat[j] * box(b)[j] + box(d)[j].
#pragma once

#include "math/macros.h"

namespace geco {

// Of some numbers of both images: means, sums of squares about them, sum of co-moments. Raw sums of squares would
// cancel where a patch is far brighter than it varies.
template <class N>
struct Moments {
  N mean_hat, mean, m2_hat, m2, co;
};

// A number of each image that means are counted from. Where it is a pixel of the patch itself, a mean rounds by no more
// than the patch varies, however bright the patch or its neighbours are.
template <class N>
struct Reference {
  N hat, x;
};

// Moments with a reference of their own.
template <class N>
struct ReferredMoments {
  Moments<N> moments;
  Reference<N> from;
};

template <class N>
GECO_HD Reference<N> operator-(const Reference<N>& a, const Reference<N>& b) {
  return {a.hat - b.hat, a.x - b.x};
}

template <class Real>
struct MergeWeights {
  Real share, weight;  // n2 / (n1 + n2), n1 n2 / (n1 + n2)
};

template <class Real>
GECO_HD MergeWeights<Real> merge_weights(double first, double second) {
  return {static_cast<Real>(second / (first + second)), static_cast<Real>(first * second / (first + second))};
}

template <class N, class Real>
GECO_HD Moments<N> merged_by_gap(const Moments<N>& first, const Moments<N>& second, N gap_hat, N gap,
                                 const MergeWeights<Real>& by) {
  const N weighted_hat = gap_hat * by.weight, weighted = gap * by.weight;
  return {first.mean_hat + gap_hat * by.share, first.mean + gap * by.share,
          first.m2_hat + second.m2_hat + weighted_hat * gap_hat, first.m2 + second.m2 + weighted * gap,
          first.co + second.co + weighted_hat * gap};
}

// The pairwise merge of Chan, Golub and LeVeque (1979).
template <class N, class Real>
GECO_HD Moments<N> merged(const Moments<N>& first, const Moments<N>& second, const MergeWeights<Real>& by) {
  return merged_by_gap(first, second, second.mean_hat - first.mean_hat, second.mean - first.mean, by);
}

// The same where the reference of the second lies `gap` above that of the first, which is that of the result.
template <class N, class Real>
GECO_HD Moments<N> merged(const Moments<N>& first, const Moments<N>& second, const MergeWeights<Real>& by,
                          const Reference<N>& gap) {
  return merged_by_gap(first, second, second.mean_hat - first.mean_hat + gap.hat, second.mean - first.mean + gap.x, by);
}

// Those of two pixels, counted from the first.
template <class N, class Real>
GECO_HD ReferredMoments<N> merged(const Reference<N>& first, const Reference<N>& second, const MergeWeights<Real>& by) {
  const Reference<N> gap = second - first;
  const N weighted_hat = gap.hat * by.weight, weighted = gap.x * by.weight;
  return {{gap.hat * by.share, gap.x * by.share, weighted_hat * gap.hat, weighted * gap.x, weighted_hat * gap.x},
          first};
}

// With a pixel more.
template <class N, class Real>
GECO_HD ReferredMoments<N> merged(const ReferredMoments<N>& first, const Reference<N>& pixel,
                                  const MergeWeights<Real>& by) {
  const Moments<N>& m = first.moments;
  const Reference<N> gap = pixel - first.from;
  const N gap_hat = gap.hat - m.mean_hat, gap_x = gap.x - m.mean;
  const N weighted_hat = gap_hat * by.weight, weighted = gap_x * by.weight;
  return {{m.mean_hat + gap_hat * by.share, m.mean + gap_x * by.share, m.m2_hat + weighted_hat * gap_hat,
           m.m2 + weighted * gap_x, m.co + weighted_hat * gap_x},
          first.from};
}

template <class N, class Real>
GECO_HD ReferredMoments<N> merged(const ReferredMoments<N>& first, const ReferredMoments<N>& second,
                                  const MergeWeights<Real>& by) {
  return {merged(first.moments, second.moments, by, second.from - first.from), first.from};
}

template <class N>
struct PatchCoefficients {
  N a, b, d;
};

template <class N>
GECO_HD PatchCoefficients<N> operator+(const PatchCoefficients<N>& first, const PatchCoefficients<N>& second) {
  return {first.a + second.a, first.b + second.b, first.d + second.d};
}

// Coefficients as they are for a reference that lies `gap` below theirs.
template <class N>
GECO_HD PatchCoefficients<N> lowered(const PatchCoefficients<N>& c, const Reference<N>& gap) {
  return {c.a, c.b, c.d + c.b * gap.hat - c.a * gap.x};
}

// What a windowed constraint needs besides the moments of a patch.
template <class Real>
struct PatchRule {
  Real per_number;  // 1 / numbers of a patch
  Real eps;         // added to variances and covariance
  Real factor;      // of the derivative: multiplier * weight * sign / (batch * numbers of a patch)
};

// An eps beyond what this type can hold, or divide by, counts as the next one that it can.
template <class Real>
GECO_HD Real representable_eps(double eps) {
  const double smallest = sizeof(Real) == sizeof(double) ? 0x1p-1022 : 0x1p-126;
  const double largest = sizeof(Real) == sizeof(double) ? 0x1p1020 : 0x1p124;
  return static_cast<Real>(eps < smallest ? smallest : eps > largest ? largest : eps);
}

// A formula takes the moments of a patch and the references they are counted from. It returns the value of the patch,
// and in `c` the coefficients of its gradient.

// psi(x)^T psi(x_hat) = (cov + eps) / sqrt((var_hat + eps) (var + eps))
template <class Math>
struct PatchCorrelation {
  template <class N, class Real>
  GECO_HD N operator()(const Moments<N>& moments, const Reference<Real>&, const PatchRule<Real>& rule,
                       PatchCoefficients<N>& c) const {
    const N inverse_hat = Math::inverse_sqrt(moments.m2_hat * rule.per_number + rule.eps);
    const N inverse = Math::inverse_sqrt(moments.m2 * rule.per_number + rule.eps);
    const N correlation = (moments.co * rule.per_number + rule.eps) * inverse_hat * inverse;
    const N scaled_hat = inverse_hat * rule.factor;
    // Where an image is flat its coefficient, some 1/eps, multiplies a difference that is zero: it would only round.
    const N a = Math::unless_zero(moments.m2, scaled_hat * inverse);
    const N b = Math::unless_zero(moments.m2_hat, scaled_hat * inverse_hat * correlation);
    c = {a, b, b * moments.mean_hat - a * moments.mean};
    return Math::min(Math::max(correlation, static_cast<Real>(-1)), static_cast<Real>(1));  // rounding goes beyond
  }
};

// [(m_hat - m)^2 + (d_hat - d)^2] / 2 with d = sqrt(var + eps)
template <class Math>
struct LocalStatistics {
  template <class N, class Real>
  GECO_HD N operator()(const Moments<N>& moments, const Reference<Real>& from, const PatchRule<Real>& rule,
                       PatchCoefficients<N>& c) const {
    const N var_hat = moments.m2_hat * rule.per_number + rule.eps, var = moments.m2 * rule.per_number + rule.eps;
    const N inverse_hat = Math::inverse_sqrt(var_hat), inverse = Math::inverse_sqrt(var);
    const N mean_gap = moments.mean_hat - moments.mean + (from.hat - from.x);
    // d_hat - d without the difference of two roots: nothing is left of it where the variances agree.
    const N deviation_gap = Math::quotient(var_hat - var, var_hat * inverse_hat + var * inverse);
    const N b = Math::unless_zero(moments.m2_hat, deviation_gap * inverse_hat * -rule.factor);
    c = {N{}, b, mean_gap * rule.factor + b * moments.mean_hat};
    return (mean_gap * mean_gap + deviation_gap * deviation_gap) * static_cast<Real>(0.5);
  }
};

// SSIM (Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment", 2004), with C1 = eps and C2 = 9 eps:
//
//   (2 m_hat m + C1) / (m_hat^2 + m^2 + C1)  times  (2 cov + C2) / (var_hat + var + C2)
//
// Both factors are one minus a distance: (m_hat - m)^2 or var_hat + var - 2 cov, over the same denominator. By m_hat
// the first has the slope 2 r (m_hat r - 1), r = (m_hat - m) / (m_hat^2 + m^2 + C1).
template <class Math>
struct StructuralSimilarity {
  template <class N, class Real>
  GECO_HD N operator()(const Moments<N>& moments, const Reference<Real>& from, const PatchRule<Real>& rule,
                       PatchCoefficients<N>& c) const {
    constexpr Real kOne = 1;
    const N mean_gap = moments.mean_hat - moments.mean + (from.hat - from.x);
    const N m_hat = moments.mean_hat + from.hat, m = m_hat - mean_gap;
    const N relative_gap = Math::quotient(mean_gap, m_hat * m_hat + m * m + rule.eps);
    const N half_sum = (moments.m2_hat + moments.m2) * static_cast<Real>(0.5);
    const N inverse = Math::quotient(kOne + N{}, half_sum * rule.per_number + rule.eps * static_cast<Real>(4.5));
    // Counted from 1, which equal images then have exactly.
    const N luminance = kOne - mean_gap * relative_gap;
    const N structure = kOne - (half_sum - moments.co) * rule.per_number * inverse;
    const N scaled = luminance * inverse * rule.factor;
    const N by_mean = (relative_gap + relative_gap) * (m_hat * relative_gap - kOne) * structure * rule.factor;
    const N a = Math::unless_zero(moments.m2, scaled);
    const N b = Math::unless_zero(moments.m2_hat, scaled * structure);
    c = {a, b, b * moments.mean_hat - a * moments.mean + by_mean};
    return Math::min(Math::max(luminance * structure, -kOne), kOne);  // rounding goes beyond
  }
};

// The rows of windowed kinds in GECO_CONSTRAINT_KINDS (math/kinds.h), and their formulas.
//   enumerator, name in Python, scale rule, is it windowed, element rule, formula
#define GECO_WINDOWED_KINDS(X)                                                                \
  X(kPatchCorrelation, "patch_ncc", kOneMinusKappa, true, kOfImage, PatchCorrelation)         \
  X(kLocalStatistics, "local_statistics", kKappaSquared, true, kOfPositions, LocalStatistics) \
  X(kStructuralSimilarity, "structural_similarity", kOneMinusKappa, true, kOfImage, StructuralSimilarity)

}  // namespace geco

// A reparametrised sample of a diagonal Gaussian posterior and its KL from a Gaussian prior (Kingma and Welling 2013).
// N and Math as in math/activations.h.
#pragma once

#include "math/activations.h"

namespace geco {

template <class N>
struct Gaussian {
  N mean, log_std;
};

template <class N>
struct GaussianSample {
  N z, kl;
};

// How posterior and prior differ, in units of the prior: r = q_log_std - p_log_std and exp(r) - 1, and
// d = (q_mean - p_mean) / exp(p_log_std).
template <class N>
struct GaussianGap {
  N deviation;            // exp(q_log_std)
  N log_ratio, excess;    // r, exp(r) - 1
  N distance, precision;  // d, exp(-p_log_std)
};

template <class Math, class N>
GECO_HD GaussianGap<N> gap_from_standard(const Gaussian<N>& q) {
  const Exponential<N> deviation = Math::exponential(q.log_std);
  return {deviation.value, q.log_std, deviation.minus_one, q.mean, typename Math::Real(1) + N{}};
}

template <class Math, class N>
GECO_HD GaussianGap<N> gap_from_prior(const Gaussian<N>& q, const Gaussian<N>& p) {
  const N log_ratio = q.log_std - p.log_std, precision = Math::exp(-p.log_std);
  return {Math::exp(q.log_std), log_ratio, Math::exponential(log_ratio).minus_one, (q.mean - p.mean) * precision,
          precision};
}

// KL = (exp(2 r) - 1 - 2 r + d^2) / 2. With m = exp(r) - 1 that is m^2 / 2 + (m - r) + d^2 / 2, of which no part is
// negative: nothing but a difference of the size of the result cancels where posterior and prior nearly agree.
template <class Math, class N>
GECO_HD GaussianSample<N> gaussian_sample(const N& mean, const N& noise, const GaussianGap<N>& gap) {
  using Real = typename Math::Real;
  return {mean + gap.deviation * noise,
          (gap.excess * gap.excess + gap.distance * gap.distance) * Real(0.5) + (gap.excess - gap.log_ratio)};
}

template <class N>
struct GaussianGradients {
  N q_mean, q_log_std, p_mean, p_log_std;
};

template <class Math, class N>
GECO_HD GaussianGradients<N> gaussian_gradients(const N& of_z, const N& of_kl, const N& noise,
                                                const GaussianGap<N>& gap) {
  using Real = typename Math::Real;
  const N by_mean = of_kl * (gap.distance * gap.precision);
  const N by_log_std = of_kl * (gap.excess * (gap.excess + Real(2)));  // exp(2 r) - 1
  return {of_z + by_mean, of_z * (gap.deviation * noise) + by_log_std, -by_mean,
          -by_log_std - of_kl * (gap.distance * gap.distance)};
}

}  // namespace geco

// The constraints that compare number by number (Table 1 of "Taming VAEs").
#pragma once

#include <cmath>

#include "math/macros.h"

namespace geco {

// RE, FRE: weight * (x_hat - x)^2 has the derivative 2 weight (x_hat - x).
GECO_HD double squared_error_coefficient(double multiplier, double weight, double batch) {
  return 2.0 * multiplier * weight / batch;
}

constexpr double kSmallestProbability = 1e-12;  // what a smaller one counts as where it is divided by

// CLA: the probability of the label, differentiated by the score of class j. For logits that is
//   d p_label / d logit_j = p_label ([j = label] - p_j),
// which vanishes where the classifier is sure of another class; the gradient of log p_label does not.
GECO_HD double class_derivative(bool from_logits, bool of_logarithm, double p_label, double p_j, bool is_label) {
  const double unit = is_label ? 1.0 : 0.0;
  if (!(p_label == p_label)) return from_logits || of_logarithm ? p_label : unit;  // a label out of range
  if (from_logits) return (of_logarithm ? 1.0 : p_label) * (unit - p_j);
  return of_logarithm ? unit / (p_label < kSmallestProbability ? kSmallestProbability : p_label) : unit;
}

}  // namespace geco

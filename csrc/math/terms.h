// The constraints that compare number by number (Table 1 of "Taming VAEs").
#pragma once

#include <cmath>

#include "math/macros.h"

namespace geco {

// RE, FRE: weight * (x_hat - x)^2 has the derivative 2 weight (x_hat - x).
GECO_HD double squared_error_coefficient(double multiplier, double weight, double batch) {
  return 2.0 * multiplier * weight / batch;
}

// CLA: the softmax probability of one class, given exp(logit - largest) and its sum, differentiated by a logit:
// d p_label / d logit_j = p_label ([j = label] - p_j).
GECO_HD double softmax_derivative(double p_label, double p_j, bool is_label) {
  return p_label * ((is_label ? 1.0 : 0.0) - p_j);
}

}  // namespace geco

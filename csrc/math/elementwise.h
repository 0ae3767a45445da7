// The constraints that compare number by number (Table 1 of "Taming VAEs").
#pragma once

#include <cmath>

#include "math/macros.h"

namespace geco {

// RE, FRE: weight * (x_hat - x)^2 has the derivative 2 weight (x_hat - x).
GECO_HD double squared_error_coefficient(double multiplier, double weight, double batch) {
  return 2.0 * multiplier * weight / batch;
}

}  // namespace geco

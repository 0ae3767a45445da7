// The transformed part of an affine coupling layer (Dinh et al. 2016, equations 7 and 8). N and Math as in
// math/activations.h.
#pragma once

#include "math/macros.h"

namespace geco {

// The log-determinant is the sum of these, of the inverse too.
template <class N>
struct Transformed {
  N y, log_det;
};

template <bool inverse, class Math, class N>
GECO_HD Transformed<N> affine_coupling(const N& x, const N& log_scale, const N& shift) {
  if constexpr (inverse) {
    return {(x - shift) * Math::exp(-log_scale), -log_scale};
  } else {
    return {x * Math::exp(log_scale) + shift, log_scale};
  }
}

// By shift it is grad_y, or for the inverse the negative of that by x.
template <class N>
struct CouplingGradients {
  N x, log_scale;
};

// `value`: x, or what came out of the inverse.
template <bool inverse, class Math, class N>
GECO_HD CouplingGradients<N> coupling_gradients(const N& of_y, const N& of_log_det, const N& value,
                                                const N& log_scale) {
  if constexpr (inverse) {
    return {of_y * Math::exp(-log_scale), -(of_y * value) - of_log_det};
  } else {
    const N of_x = of_y * Math::exp(log_scale);
    return {of_x, of_x * value + of_log_det};
  }
}

}  // namespace geco

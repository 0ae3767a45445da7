// The gates of a long short-term memory cell (Hochreiter and Schmidhuber 1997). N and Math as in math/activations.h.
#pragma once

#include "math/activations.h"

namespace geco {

// Pre-activations, or the gradients by them.
template <class N>
struct Gates {
  N input, forget, candidate, output;
};

template <class N>
struct HiddenAndCell {
  N hidden, cell;
};

template <class Math, class N>
GECO_HD HiddenAndCell<N> lstm_gates(const Gates<N>& gates, const N& cell) {
  const N new_cell = sigmoid<Math>(gates.forget).value * cell +
                     sigmoid<Math>(gates.input).value * hyperbolic_tangent<Math>(gates.candidate).value;
  return {sigmoid<Math>(gates.output).value * hyperbolic_tangent<Math>(new_cell).value, new_cell};
}

template <class N>
struct GatesGradients {
  Gates<N> gates;
  N cell;
};

template <class Math, class N>
GECO_HD GatesGradients<N> lstm_gradients(const N& of_hidden, const N& of_new_cell, const Gates<N>& gates,
                                         const N& cell) {
  const Sigmoid<N> input = sigmoid<Math>(gates.input), forget = sigmoid<Math>(gates.forget),
                   output = sigmoid<Math>(gates.output);
  const Tanh<N> candidate = hyperbolic_tangent<Math>(gates.candidate);
  const Tanh<N> squashed = hyperbolic_tangent<Math>(forget.value * cell + input.value * candidate.value);
  const N of_cell = of_new_cell + of_hidden * (output.value * squashed.slope);
  return {{of_cell * candidate.value * (input.value * input.complement),
           of_cell * cell * (forget.value * forget.complement), of_cell * input.value * candidate.slope,
           of_hidden * squashed.value * (output.value * output.complement)},
          of_cell * forget.value};
}

}  // namespace geco

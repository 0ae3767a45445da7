#include "call.h"

namespace geco {

std::int64_t Tensor::elements() const {
  std::int64_t count = 1;
  for (int d = 0; d < rank; ++d) count *= sizes[d];
  return count;
}

namespace {

double elements_per_example(const Input& input) {
  return static_cast<double>(input.prediction.elements() / input.prediction.sizes[0]);
}

}  // namespace

double compared_elements(const Call& call, const Term& term) {
  if (term.kind == TermKind::kClassProbability) return static_cast<double>(call.image_elements);
  double elements = 0;
  if (term.kind == TermKind::kSquaredError) {
    for (int i : term.inputs) elements += elements_per_example(call.inputs[i]);
  }
  return elements / term.rows;
}

double squared_error_weight(const Term& term, const Input& input) {
  if (!term.mean) return 1.0;
  return static_cast<double>(term.rows) / (static_cast<double>(term.inputs.size()) * elements_per_example(input));
}

}  // namespace geco

#include <algorithm>
#include <limits>
#include <vector>

#include "cpu/lagrangian.h"
#include "math/terms.h"

namespace geco::cpu {

// CLA: C = kappa - c(x_hat)[label]. A label out of range makes the constraint NaN.
void class_probability(const Call& call, const Term& term, double* c_hat) {
  const Input& input = call.inputs[term.inputs[0]];
  const int row = term.first_row;
  const double batch = static_cast<double>(call.batch), kappa = call.state.at(Row::kKappa, row);
  const ScaleRule rule = scale_rule(term.kind);
  const double multiplier = std::exp(log_multiplier(rule, call.state, row, compared_elements(call, term)));
  const std::int64_t classes = input.prediction.sizes[1];
  std::vector<double> p(static_cast<std::size_t>(classes));
  double sum = 0;
  for (std::int64_t b = 0; b < call.batch; ++b) {
    const std::int64_t label = static_cast<const std::int64_t*>(input.target.data)[b * input.target.strides[0]];
    for (std::int64_t j = 0; j < classes; ++j) {
      p[j] = read_element(input.prediction, b * input.prediction.strides[0] + j * input.prediction.strides[1]);
    }
    if (term.from_logits) {
      const double largest = *std::max_element(p.begin(), p.end());
      double total = 0;
      for (double& value : p) total += value = std::exp(value - largest);
      for (double& value : p) value /= total;
    }
    const double p_label = label >= 0 && label < classes ? p[label] : std::numeric_limits<double>::quiet_NaN();
    sum += constraint_value(rule, p_label, kappa);
    if (!input.gradient) continue;
    for (std::int64_t j = 0; j < classes; ++j) {
      const bool is_label = j == label;
      const double derivative = class_derivative(term.from_logits, term.log_gradient, p_label, p[j], is_label);
      write_element(input.gradient, b * input.gradient.strides[0] + j * input.gradient.strides[1],
                    sign_of_measured(rule) * multiplier * derivative / batch);
    }
  }
  c_hat[row] = sum / batch;
}

}  // namespace geco::cpu

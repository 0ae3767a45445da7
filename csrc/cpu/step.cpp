#include "cpu/step.h"

#include <cmath>
#include <limits>
#include <vector>

#include "cpu/constraints.h"

namespace geco::cpu {
namespace {

double mean_kl(const LossCall& call) { return call.kl ? mean_of_examples(call.kl, call.kl_gradient, 1.0) : 0.0; }

std::vector<double> constraint_averages(const LossCall& call) {
  std::vector<double> c_hat(static_cast<std::size_t>(call.state.constraints), 0.0);
  patch_constraints(call, c_hat.data());
  elementwise_constraints(call, c_hat.data());
  for (const Constraint& constraint : *call.constraints) {
    if (is_scalar(constraint.kind)) scalar(call, constraint, c_hat.data());
  }
  return c_hat;
}

template <class Function>
void for_each_row(const LossCall& call, const Function& function) {
  for (const Constraint& constraint : *call.constraints) {
    const double elements = compared_elements(call, constraint);
    for (int row = constraint.first_row; row < constraint.first_row + constraint.rows; ++row) {
      function(row, scale_rule(constraint.kind), elements);
    }
  }
}

void write_loss(const LossCall& call, double loss) {
  if (call.loss_is_double) {
    *static_cast<double*>(call.loss) = loss;
  } else {
    *static_cast<float*>(call.loss) = static_cast<float>(loss);
  }
}

// Returns the penalty sum_l lambda_l C_l.
double update_state(const LossCall& call, const double* c_hat, bool kl_is_finite, std::int64_t examples) {
  bool finite = kl_is_finite;
  for (int l = 0; l < call.state.constraints; ++l) finite = finite && std::isfinite(c_hat[l]);
  const CallProgress progress = call_progress(*call.update, call.state, finite, examples);
  double penalty = 0;
  for_each_row(call, [&](int row, ScaleRule scale, double elements) {
    penalty += advance_constraint(*call.update, progress, call.state, row, scale, elements, c_hat[row], examples);
  });
  advance_counters(*call.update, progress, call.state);
  return penalty;
}

double penalty_at(const LossCall& call, const double* c_hat) {
  double penalty = 0;
  for_each_row(call, [&](int row, ScaleRule scale, double elements) {
    penalty += std::exp(log_multiplier(scale, call.state, row, elements)) * c_hat[row];
  });
  return penalty;
}

}  // namespace

void lagrangian(const LossCall& call) {
  const std::vector<double> c_hat = constraint_averages(call);
  const double kl = mean_kl(call);
  const double penalty =
      call.update ? update_state(call, c_hat.data(), std::isfinite(kl), call.batch) : penalty_at(call, c_hat.data());
  write_loss(call, kl + penalty);
}

void constraint_sums(const LossCall& call, double* sums) {
  const std::vector<double> c_hat = constraint_averages(call);
  const double examples = static_cast<double>(call.batch);
  const double poison = std::isfinite(mean_kl(call)) ? 0.0 : std::numeric_limits<double>::quiet_NaN();
  for (int l = 0; l < call.state.constraints; ++l) sums[l] = c_hat[l] * examples + poison;
  sums[call.state.constraints] = examples;
}

void update_from_sums(const LossCall& call, const double* sums, int world_size, double* gradient_factor) {
  const int constraints = call.state.constraints;
  const double examples = sums[constraints];
  std::vector<double> c_hat(sums, sums + constraints);
  for (double& c : c_hat) c /= examples;
  const double penalty = update_state(call, c_hat.data(), true, static_cast<std::int64_t>(examples));
  *gradient_factor = world_size * static_cast<double>(call.batch) / examples;
  write_loss(call, mean_kl(call) * *gradient_factor + penalty);
}

}  // namespace geco::cpu

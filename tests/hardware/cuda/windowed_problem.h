// Problems with windowed constraints, and the comparison of what the kernels make of them with the definition.
#pragma once

#include "window_oracle.h"

struct Tolerance {
  double constraint = 1e-6;
  double gradient = 1e-5;  // of the gradient's norm
};

constexpr Tolerance kDouble{1e-12, 1e-11};

inline Problem images(const arrays::Sizes& sizes, DataType p = DataType::kFloat32, DataType t = DataType::kFloat32,
                      Layout of_prediction = Layout::kContiguous, Layout of_target = Layout::kContiguous) {
  Problem problem;
  problem.batch = sizes[0];
  problem.image_elements = sizes[1] * sizes[2] * sizes[3];
  problem.input(Array(p, sizes, of_prediction), Array(t, sizes, of_target));
  problem.fill();
  return problem;
}

inline void add_windowed(Problem& problem, ConstraintKind kind, std::int64_t size, std::int64_t stride = 1,
                         bool per_channel = false, double eps = 1e-3) {
  problem.add(kind, {0});
  problem.constraints.back().patches = {size, stride, eps, per_channel};
}

inline void add_both(Problem& problem, std::int64_t size, std::int64_t stride = 1, bool per_channel = false) {
  add_windowed(problem, ConstraintKind::kPatchCorrelation, size, stride, per_channel);
  add_windowed(problem, ConstraintKind::kLocalStatistics, size, stride, per_channel);
}

// All other constraints as the kernels of the CPU compute them, windowed ones by definition: sums over the batch,
// gradients.
inline Outputs expected_sums(const Problem& problem, const std::vector<double>& block, Layout layout) {
  Outputs expected(problem, block, layout);
  std::vector<Constraint> plain;
  for (const Constraint& constraint : problem.constraints) {
    if (!geco::is_windowed(constraint.kind)) plain.push_back(constraint);
  }
  LossCall call = expected.call(problem, nullptr);
  call.constraints = &plain;
  geco::cpu::constraint_sums(call, expected.sums.data());
  for (const Constraint& constraint : problem.constraints) {
    if (!geco::is_windowed(constraint.kind)) continue;
    const int row = constraint.first_row;
    const oracle::Answer answer =
        oracle::windowed(constraint, problem.predictions[0], problem.targets[0], call.state.at(Row::kKappa, row));
    expected.sums[static_cast<std::size_t>(row)] = answer.constraint * static_cast<double>(problem.batch);
    if (!problem.wants_gradients) continue;
    const double multiplier = std::exp(geco::log_multiplier(geco::scale_rule(constraint.kind), call.state, row,
                                                            geco::compared_elements(call, constraint)));
    Array& gradient = expected.gradients[0];
    for (std::int64_t i = 0; i < gradient.elements(); ++i) {
      gradient.set(i, gradient.get(i) + multiplier * answer.gradient[static_cast<std::size_t>(i)]);
    }
  }
  return expected;
}

inline double norm(const Array& array) {
  double sum = 0;
  for (std::int64_t i = 0; i < array.elements(); ++i) sum += array.get(i) * array.get(i);
  return std::sqrt(sum);
}

inline void expect_gradients(const Outputs& got, const Outputs& expected, const Tolerance& tolerance) {
  for (std::size_t k = 0; k < expected.gradients.size(); ++k) {
    const Array &g = got.gradients[k], &e = expected.gradients[k];
    double distance = 0;
    for (std::int64_t i = 0; i < e.elements(); ++i) distance += std::pow(g.get(i) - e.get(i), 2);
    if (std::sqrt(distance) <= tolerance.gradient * norm(e)) continue;
    char text[100];
    std::snprintf(text, sizeof text, "gradient %zu is %.2e of its norm off", k, std::sqrt(distance) / norm(e));
    fail(text);
  }
  expect_close("gradient of kl", got.kl_gradient, expected.kl_gradient, 1e-6);
}

// Constraint vector and gradients; the same bits twice; one launch.
inline void compare_sums(const Problem& problem, const Tolerance& tolerance = {}, Layout layout = Layout::kContiguous) {
  const std::vector<double> block = new_block(problem.row_count);
  const Outputs expected = expected_sums(problem, block, layout);
  Outputs got(problem, block, layout), again = got;
  std::vector<double> workspace;
  const Place here = place(problem, workspace);
  const long before = shim::launches;
  geco::cuda::constraint_sums(got.call(problem, nullptr), here, got.sums.data());
  if (shim::launches != before + 1) fail("expected one launch");
  for (std::size_t i = 0; i < expected.sums.size(); ++i) {
    expect_close("sum " + std::to_string(i), got.sums[i], expected.sums[i],
                 tolerance.constraint * static_cast<double>(problem.batch));
  }
  expect_gradients(got, expected, tolerance);
  geco::cuda::constraint_sums(again.call(problem, nullptr), here, again.sums.data());
  if (std::memcmp(got.sums.data(), again.sums.data(), got.sums.size() * 8) != 0) fail("two runs differ");
}

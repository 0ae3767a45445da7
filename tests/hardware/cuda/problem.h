// A criterion's inputs and what a backend makes of them, for the runs of the kernels.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "arrays.h"
#include "cuda/launch.h"
#include "cuda/step.h"
#include "elementwise_definitions.h"

using arrays::Array;
using arrays::Layout;
using definitions::kErrorCount;
using definitions::kErrors;
using geco::Constraint;
using geco::ConstraintKind;
using geco::Counter;
using geco::DataType;
using geco::Input;
using geco::LossCall;
using geco::MultiplierUpdate;
using geco::Row;
using geco::State;
using geco::Tensor;
using geco::Violation;
using geco::cuda::Place;

constexpr DataType kFloats[] = {DataType::kFloat32, DataType::kFloat64, DataType::kFloat16, DataType::kBFloat16};
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

inline std::mt19937 random_numbers(7);
inline std::string scenario;

[[noreturn]] inline void fail(const std::string& what) {
  std::printf("%s: %s\n", scenario.c_str(), what.c_str());
  std::exit(1);
}

inline void expect_close(const std::string& what, double got, double expected, double tolerance) {
  const bool same = got == expected || (got != got && expected != expected);
  if (same || std::fabs(got - expected) <= tolerance * std::max(1.0, std::fabs(expected))) return;
  fail(what + ": got " + std::to_string(got) + ", expected " + std::to_string(expected));
}

inline void expect_close(const std::string& what, const Array& got, const Array& expected, double tolerance) {
  double scale = 0;
  for (std::int64_t i = 0; i < expected.elements(); ++i) {
    if (std::isfinite(expected.get(i))) scale = std::max(scale, std::fabs(expected.get(i)));
  }
  for (std::int64_t i = 0; i < expected.elements(); ++i) {
    const double g = got.get(i), e = expected.get(i);
    const bool same = g == e || (g != g && e != e);
    if (!same && !(std::fabs(g - e) <= tolerance * scale)) {
      fail(what + "[" + std::to_string(i) + "]: got " + std::to_string(g) + ", expected " + std::to_string(e));
    }
  }
}

// The state block of `constraints` constraints, every multiplier on its automatic start, by the error or by the
// tolerance; every third kappa has a schedule, every sixth one that starts at the error of the first step.
inline std::vector<double> new_block(int constraints) {
  std::vector<double> words(static_cast<std::size_t>(static_cast<int>(Row::kCount) * constraints) +
                            static_cast<std::size_t>(Counter::kCount));
  const State state{words.data(), constraints};
  for (int l = 0; l < constraints; ++l) {
    state.at(Row::kLogMultiplier, l) = kNaN;
    state.at(Row::kKappa, l) = 0.2 + 0.05 * l;
    state.at(Row::kLogLow, l) = state.at(Row::kLogHigh, l) = kNaN;
    state.at(Row::kScale, l) = 0.7;
    state.at(Row::kNaturalMultiplier, l) = 2.5;
    state.at(Row::kFollowsError, l) = l % 2;
    state.at(Row::kKappaTarget, l) = 0.8 * state.at(Row::kKappa, l);
    state.at(Row::kScheduleStart, l) = l % 6 == 0 ? kNaN : 2.0 * state.at(Row::kKappa, l);
    state.at(Row::kScheduleSteps, l) = l % 3 == 0 ? 3.0 : 0.0;
    state.at(Row::kScheduleIsLinear, l) = l % 4 == 0;
  }
  return words;
}

// What a criterion compares, and one backend's outputs.
struct Problem {
  std::vector<Constraint> constraints;
  std::vector<Array> predictions, targets, weights;  // weights of the first inputs, or of none
  Array kl;
  std::int64_t batch = 0, image_elements = 0;
  bool wants_gradients = true;
  int row_count = 0;

  void add(ConstraintKind kind, std::vector<int> inputs, int rows = 1, bool mean = true) {
    Constraint constraint;
    constraint.kind = kind;
    constraint.first_row = row_count;
    constraint.rows = rows;
    constraint.inputs = std::move(inputs);
    constraint.mean = mean;
    constraint.eps = definitions::parameter_of(kind);
    row_count += rows;
    constraints.push_back(std::move(constraint));
  }

  // Returns the number of the new input.
  int input(Array prediction, Array target) {
    predictions.push_back(std::move(prediction));
    targets.push_back(std::move(target));
    return static_cast<int>(predictions.size()) - 1;
  }

  void fill() {
    for (Array& array : predictions) array.fill(random_numbers);
    for (Array& array : targets) array.fill(random_numbers);
    kl.fill(random_numbers);
  }

  double tolerance() const {
    for (const Array& array : predictions) {
      if (array.type() != DataType::kFloat64) return 1e-6;
    }
    return 1e-12;
  }
};

struct Outputs {
  std::vector<Array> gradients;
  Array kl_gradient;
  std::vector<double> block, sums;
  double loss = 0, factor = 0;

  Outputs(const Problem& problem, std::vector<double> state, Layout layout, std::int64_t shift = 0)
      : block(std::move(state)), sums(static_cast<std::size_t>(problem.row_count) + 1) {
    if (!problem.wants_gradients) return;
    for (const Array& prediction : problem.predictions) {
      const Tensor tensor = prediction.tensor();
      gradients.emplace_back(arrays::gradient_type(prediction.type()),
                             arrays::Sizes(tensor.sizes, tensor.sizes + tensor.rank), layout, shift);
    }
    if (problem.kl.elements() > 0) {
      const Tensor tensor = problem.kl.tensor();
      kl_gradient =
          Array(arrays::gradient_type(problem.kl.type()), arrays::Sizes(tensor.sizes, tensor.sizes + tensor.rank));
    }
  }

  LossCall call(const Problem& problem, const MultiplierUpdate* update) {
    LossCall call;
    call.constraints = &problem.constraints;
    for (std::size_t i = 0; i < problem.predictions.size(); ++i) {
      const Tensor gradient = problem.wants_gradients ? gradients[i].tensor() : Tensor{};
      call.inputs.push_back({problem.predictions[i].tensor(), problem.targets[i].tensor(), gradient, {}});
      if (i < problem.weights.size()) call.inputs[i].weights = arrays::weights_tensor(problem.weights[i].tensor());
    }
    call.kl = problem.kl.tensor();
    call.kl_gradient = kl_gradient.tensor();
    call.state = State{block.data(), problem.row_count};
    call.batch = problem.batch;
    call.image_elements = problem.image_elements;
    call.update = update;
    call.loss = &loss;
    call.loss_is_double = true;
    return call;
  }
};

// Tickets are zero, numbers are whatever a call before has left.
inline Place place(const Problem&, std::vector<double>& workspace) {
  workspace.assign(static_cast<std::size_t>(geco::cuda::workspace_words(0)), kNaN);
  std::fill_n(workspace.begin(), geco::cuda::kTicketWords, 0.0);
  return {0, nullptr, [address = workspace.data()] { return address; }};
}

// As the next launch needs them.
inline void expect_zero_tickets(const std::vector<double>& workspace) {
  for (std::int64_t i = 0; i < geco::cuda::kTicketWords; ++i) {
    if (std::memcmp(&workspace[i], "\0\0\0\0\0\0\0", 8) != 0) fail("ticket " + std::to_string(2 * i));
  }
}

inline void expect_same(const Outputs& got, const Outputs& expected, int constraints, double tolerance) {
  expect_close("loss", got.loss, expected.loss, 10 * tolerance);
  const std::size_t rows = static_cast<std::size_t>(static_cast<int>(Row::kCount) * constraints);
  for (std::size_t i = 0; i < rows; ++i) {
    expect_close("state word " + std::to_string(i), got.block[i], expected.block[i], 10 * tolerance);
  }
  for (std::size_t i = rows; i < expected.block.size(); ++i) {  // counters
    if (std::memcmp(&got.block[i], &expected.block[i], 8) != 0) fail("counter " + std::to_string(i - rows));
  }
  for (std::size_t i = 0; i < expected.gradients.size(); ++i) {
    expect_close("gradient " + std::to_string(i), got.gradients[i], expected.gradients[i], tolerance);
  }
  expect_close("gradient of kl", got.kl_gradient, expected.kl_gradient, 1e-6);
}

inline MultiplierUpdate update_rule(Violation violation = Violation::kLog, std::int64_t accumulation_steps = 1) {
  return {0.9, 0.05, 0.5, 1.0, violation, accumulation_steps};
}

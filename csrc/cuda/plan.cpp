#include "cuda/plan.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/elementwise_plan.h"
#include "cuda/threads.h"
#include "cuda/window_plan.h"

namespace geco::cuda {
namespace {

// Four waves of blocks: enough for the scheduler to even out their ends, few enough for one block to add up their sums
// in a microsecond.
constexpr int kBlocksPerMultiprocessor = 4 * kResidentBlocks;

bool reads(const Constraint& constraint, int input) {
  return std::find(constraint.inputs.begin(), constraint.inputs.end(), input) != constraint.inputs.end();
}

Operand new_operand(const Tensor& prediction, const Tensor& target, const Tensor& gradient, Operation operation) {
  Operand operand{};
  operand.prediction = prediction.data;
  operand.target = target.data;
  operand.gradient = gradient.data;
  operand.prediction_type = static_cast<std::int8_t>(prediction.type);
  operand.target_type = static_cast<std::int8_t>(target.type);
  operand.operation = operation;
  operand.channels = operand.measures = 1;
  operand.vectors = 1;
  return operand;
}

Operand mean_operand(const Tensor& values, const Tensor& gradient) {
  Operand operand = new_operand(values, Tensor{}, gradient, Operation::kMean);
  operand.elements = values.elements();
  operand.inner = {operand.elements, values.rank ? values.strides[0] : 0, 0, gradient.rank ? gradient.strides[0] : 0};
  return operand;
}

Operand laid_out_operand(const Input& input, bool per_channel, Weights& weights) {
  Operand operand = new_operand(input.prediction, input.target, input.gradient, Operation::kElementwise);
  lay_out(input, per_channel, operand, weights);
  plan_elements(input, weights, operand);
  return operand;
}

// Whether all channels have the same weights, and channels may be shared out among blocks as if each had a constraint
// of its own: the scratch memory has room for a block of each multiprocessor.
bool shares_weights(const Input& input, const DeviceSize& device) {
  return input.weights && input.weights.rank > 1 && input.weights.strides[1] == 0 &&
         input.prediction.sizes[1] <= device.multiprocessors;
}

Operand elementwise_operand(const Input& input, bool per_channel, const DeviceSize& device, Weights& weights) {
  Operand operand = laid_out_operand(input, per_channel, weights);
  if (operand.vectorised_elements == 0 && !per_channel && shares_weights(input, device)) {
    Weights of_channel{};
    const Operand channels = laid_out_operand(input, true, of_channel);
    if (channels.vectorised_elements > 0) {
      operand = channels;
      weights = of_channel;
    }
  }
  const std::int64_t gradient_bytes = input.gradient ? input.gradient.elements() * size_of(input.gradient.type) : 0;
  operand.stream = gradient_bytes > device.l2_bytes / 2;
  return operand;
}

Operand windows_operand(const Input& input, const DeviceSize& device) {
  Weights none;
  Operand operand = elementwise_operand(input, false, device, none);
  const auto dimension = [&](int d) {
    const auto bytes = [d](const Tensor& tensor) { return tensor.strides[d] * size_of(tensor.type); };
    return Dimension{input.prediction.sizes[d], bytes(input.prediction), bytes(input.target), bytes(input.gradient)};
  };
  operand.operation = Operation::kWindows;
  operand.channel = dimension(1);
  operand.outer[0] = dimension(0);
  operand.outer[1] = dimension(2);
  operand.inner = dimension(3);
  operand.vectorised_elements = 0;
  return operand;
}

int sums_of_block(const Plan& plan, const Operand& operand) {
  return operand.operation == Operation::kWindows ? plan.strips.sums : operand.measures;
}

// Elementwise operands share the device by size; means are small and get a block for each few thousand
// numbers.
void share_out(Plan& plan, const DeviceSize& device) {
  std::int64_t rounds = 0, tiles = 0;
  for (int i = 0; i < plan.operand_count; ++i) {
    Operand& operand = plan.operands[i];
    if (operand.operation != Operation::kElementwise) continue;
    plan_round(operand, plan.weighted, 1);
    rounds += operand.channels * rounds_of(operand);
  }
  // Threads take one vector each until all multiprocessors are full.
  const std::int64_t deep = rounds / (kResidentBlocks * device.multiprocessors);
  const std::int64_t most = kBlocksPerMultiprocessor * device.multiprocessors;
  for (int i = 0; i < plan.operand_count; ++i) {
    Operand& operand = plan.operands[i];
    if (operand.operation != Operation::kElementwise) continue;
    plan_round(operand, plan.weighted, deep);
    tiles += operand.channels * rounds_of(operand);
  }
  const std::int64_t tiles_of_block = std::max<std::int64_t>(1, ceil_div(tiles, most));
  for (int i = 0; i < plan.operand_count; ++i) {
    Operand& operand = plan.operands[i];
    std::int64_t blocks = 0;
    switch (operand.operation) {
      case Operation::kElementwise: blocks = ceil_div(rounds_of(operand), tiles_of_block); break;
      case Operation::kMean: blocks = ceil_div(operand.elements, 4 * kThreads); break;
      case Operation::kWindows: blocks = operand.blocks; break;  // plan_windows knows
    }
    if (operand.operation == Operation::kMean) blocks = std::min<std::int64_t>(blocks, device.multiprocessors);
    operand.first_block = plan.blocks;
    operand.first_partial = plan.blocks;
    operand.blocks = static_cast<int>(blocks);
    operand.first_sum = plan.sums;
    plan.blocks += operand.blocks * operand.channels;
    plan.sums += operand.channels * sums_of_block(plan, operand);
  }
  // Blocks that leave several sums write them behind those of all others.
  int behind = plan.blocks;
  for (int i = 0; i < plan.operand_count; ++i) {
    Operand& operand = plan.operands[i];
    if (operand.operation != Operation::kWindows && sums_of_block(plan, operand) == 1) continue;
    operand.first_partial = behind;
    behind += sums_of_block(plan, operand) * operand.channels * operand.blocks;
  }
}

void limit(std::size_t count, int most, const char* takes, const char* what) {
  if (count <= static_cast<std::size_t>(most)) return;
  throw std::invalid_argument("it " + std::string(takes) + " at most " + std::to_string(most) + " " + what + ", got " +
                              std::to_string(count));
}

double weight_of(const Constraint& constraint, const Input& input) {
  if (is_elementwise(constraint.kind)) return difference_weight(constraint, input);
  return is_windowed(constraint.kind) ? patch_weight(constraint.patches, input) : 1.0;
}

void plan_constraints(const LossCall& call, Plan& plan) {
  limit(call.constraints->size(), kMaxConstraints, "takes", "constraint terms");
  limit(static_cast<std::size_t>(call.state.constraints), kMaxRows, "takes", "constraints");
  for (const Constraint& constraint : *call.constraints) {
    PlannedConstraint& planned = plan.constraints[plan.constraint_count++];
    planned.elements = compared_elements(call, constraint);
    planned.first_row = static_cast<std::int16_t>(constraint.first_row);
    planned.rows = static_cast<std::int16_t>(constraint.rows);
    planned.first_input = static_cast<std::int8_t>(plan.weighted_input_count);
    planned.inputs = static_cast<std::int8_t>(constraint.inputs.size());
    planned.kind_number = static_cast<std::int8_t>(constraint.kind);
    planned.scale_rule_number = static_cast<std::int8_t>(scale_rule(constraint.kind));
    for (int input : constraint.inputs) {
      if (plan.weighted_input_count == kMaxWeightedInputs)
        limit(kMaxWeightedInputs + 1, kMaxWeightedInputs, "takes", "pairs of constraint and tensor");
      plan.weighted_inputs[plan.weighted_input_count++] = {static_cast<std::int16_t>(input), 0,
                                                           weight_of(constraint, call.inputs[input])};
    }
  }
  plan.state = call.state;
  plan.batch = call.batch;
  plan.loss = call.loss;
  plan.loss_is_double = call.loss_is_double;
  plan.kl_operand = -1;
  if (call.update) plan.update = *call.update;
}

void plan_kl(const LossCall& call, Plan& plan) {
  if (!call.kl) return;
  plan.kl_operand = plan.operand_count;
  plan.operands[plan.operand_count++] = mean_operand(call.kl, call.kl_gradient);
}

// What the inputs so far measure, and one more.
MeasureSet with_measures(const Plan& plan, const std::vector<Measure>& measures, const Input& input) {
  if (measures.size() > 1 || plan.measure_set == MeasureSet::kAny) return MeasureSet::kAny;
  if (plan.measure_count > 0 && plan.measures[0].kind() != measures[0].kind) return MeasureSet::kAny;
  if (measures[0].kind == ConstraintKind::kSquaredError) return MeasureSet::kSquaredAlone;
  const bool wide = input.prediction.type == DataType::kFloat64 || input.target.type == DataType::kFloat64;
  return wide ? MeasureSet::kAny : MeasureSet::kAnotherAlone;  // measures.cuh, OneMeasure
}

// What the elementwise constraints of an input measure.
void plan_measures(const LossCall& call, int input, Plan& plan) {
  const std::vector<Measure> measures = measures_of(call, input);
  Operand& operand = plan.operands[input];
  if (measures.empty() && operand.operation == Operation::kMean) return;
  limit(measures.size(), kMaxMeasures, "takes", "measures of the differences of a tensor");
  operand.measures = static_cast<std::int8_t>(measures.size());
  operand.first_measure = static_cast<std::int8_t>(plan.measure_count);
  if (!measures.empty()) plan.measure_set = with_measures(plan, measures, call.inputs[input]);
  const auto same = [](const PlannedMeasure& planned, const Measure& measure) {
    return planned.kind() == measure.kind && planned.eps == measure.eps;
  };
  PlannedMeasure* const end = plan.measures + plan.measure_count;
  const PlannedMeasure* const listed = std::search(plan.measures, end, measures.begin(), measures.end(), same);
  if (listed != end) {
    operand.first_measure = static_cast<std::int8_t>(listed - plan.measures);
  } else {
    limit(static_cast<std::size_t>(plan.measure_count) + measures.size(), kMaxMeasures + 1, "takes",
          "measures of differences");
    for (const Measure& measure : measures) {
      plan.measures[plan.measure_count++] = {measure.eps, static_cast<std::int8_t>(measure.kind)};
    }
  }
  for (int t = 0; t < plan.constraint_count; ++t) {
    const Constraint& constraint = (*call.constraints)[t];
    const auto found = std::find(measures.begin(), measures.end(), measure_of(constraint));
    if (found == measures.end()) continue;
    const PlannedConstraint& planned = plan.constraints[t];
    for (int r = planned.first_input; r < planned.first_input + planned.inputs; ++r) {
      if (plan.weighted_inputs[r].operand != input) continue;
      plan.weighted_inputs[r].measure = static_cast<std::int16_t>(found - measures.begin());
    }
  }
}

void limit_weights(const LossCall& call, int input) {
  if (static_cast<bool>(call.inputs[input].weights) != static_cast<bool>(call.inputs[0].weights)) {
    throw std::invalid_argument("it takes weights for all tensors that are compared number by number, or for none");
  }
  if (call.inputs[input].weights)
    limit(static_cast<std::size_t>(input) + 1, kMaxWeights, "weighs", "tensors in a call");
}

// A constraint that reads an input: a windowed one, where there are several, or else a squared error.
const Constraint& reader(const LossCall& call, int input, bool& per_channel) {
  const Constraint* found = nullptr;
  for (const Constraint& constraint : *call.constraints) {
    if (!reads(constraint, input)) continue;
    if (found == nullptr || is_windowed(constraint.kind)) found = &constraint;
    per_channel = per_channel || constraint.rows > 1;
  }
  if (found == nullptr) throw std::invalid_argument("input " + std::to_string(input) + " belongs to no constraint");
  return *found;
}

}  // namespace

std::int64_t most_partials(const DeviceSize& device) {
  const std::int64_t plain =
      static_cast<std::int64_t>(kBlocksPerMultiprocessor + kMaxOperands) * device.multiprocessors;
  return (1 + kMaxMeasures) * plain + most_window_partials(device);
}

Plan plan_of(const LossCall& call, Outcome outcome, const DeviceSize& device) {
  limit(call.inputs.size(), kMaxInputs, "compares", "tensors in a call");
  Plan plan{};
  plan.outcome = outcome;
  plan.measure_set = MeasureSet::kSquaredAlone;  // inputs that are not elementwise take its kernel, too
  plan_constraints(call, plan);
  for (int i = 0; i < static_cast<int>(call.inputs.size()); ++i) {
    const Input& input = call.inputs[i];
    bool per_channel = false;
    const Constraint& constraint = reader(call, i, per_channel);
    Operand& operand = plan.operands[plan.operand_count++];
    if (is_scalar(constraint.kind)) {
      operand = mean_operand(input.prediction, input.gradient);
    } else if (is_windowed(constraint.kind)) {
      operand = windows_operand(input, device);
    } else {
      Weights weights;
      operand = elementwise_operand(input, per_channel, device, weights);
      limit_weights(call, i);
      if (input.weights) plan.weights[i] = weights;
      plan.weighted = plan.weighted || input.weights;
    }
    plan_measures(call, i, plan);
  }
  plan_kl(call, plan);
  plan_windows(call, device, plan);
  share_out(plan, device);
  plan.blocks = std::max(plan.blocks, 1);  // inputs without elements still have a loss
  return plan;
}

Plan plan_of_update(const LossCall& call, const DeviceSize& device) {
  Plan plan{};
  plan.outcome = Outcome::kTraining;
  plan_constraints(call, plan);
  plan_kl(call, plan);
  share_out(plan, device);
  return plan;
}

}  // namespace geco::cuda

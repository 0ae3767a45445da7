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

Item new_item(const Tensor& prediction, const Tensor& target, const Tensor& gradient, Operation operation) {
  Item item{};
  item.prediction = prediction.data;
  item.target = target.data;
  item.gradient = gradient.data;
  item.prediction_type = static_cast<std::int8_t>(prediction.type);
  item.target_type = static_cast<std::int8_t>(target.type);
  item.operation = operation;
  item.channels = item.measures = 1;
  item.vectors = 1;
  return item;
}

Item mean_item(const Tensor& values, const Tensor& gradient) {
  Item item = new_item(values, Tensor{}, gradient, Operation::kMean);
  item.elements = values.elements();
  item.inner = {item.elements, values.rank ? values.strides[0] : 0, 0, gradient.rank ? gradient.strides[0] : 0};
  return item;
}

Item laid_out_item(const Input& input, bool per_channel, Weights& weights) {
  Item item = new_item(input.prediction, input.target, input.gradient, Operation::kElementwise);
  lay_out(input, per_channel, item, weights);
  plan_elements(input, weights, item);
  return item;
}

// Whether all channels have the same weights, and channels may be shared out among blocks as if each had a constraint
// of its own: the scratch memory has room for a block of each multiprocessor.
bool shares_weights(const Input& input, const DeviceSize& device) {
  return input.weights && input.weights.rank > 1 && input.weights.strides[1] == 0 &&
         input.prediction.sizes[1] <= device.multiprocessors;
}

Item elementwise_item(const Input& input, bool per_channel, const DeviceSize& device, Weights& weights) {
  Item item = laid_out_item(input, per_channel, weights);
  if (item.vectorised_elements == 0 && !per_channel && shares_weights(input, device)) {
    Weights of_channel{};
    const Item channels = laid_out_item(input, true, of_channel);
    if (channels.vectorised_elements > 0) {
      item = channels;
      weights = of_channel;
    }
  }
  const std::int64_t gradient_bytes = input.gradient ? input.gradient.elements() * size_of(input.gradient.type) : 0;
  item.stream = gradient_bytes > device.l2_bytes / 2;
  return item;
}

Item windows_item(const Input& input, const DeviceSize& device) {
  Weights none;
  Item item = elementwise_item(input, false, device, none);
  const auto dimension = [&](int d) {
    const auto bytes = [d](const Tensor& tensor) { return tensor.strides[d] * size_of(tensor.type); };
    return Dimension{input.prediction.sizes[d], bytes(input.prediction), bytes(input.target), bytes(input.gradient)};
  };
  item.operation = Operation::kWindows;
  item.channel = dimension(1);
  item.outer[0] = dimension(0);
  item.outer[1] = dimension(2);
  item.inner = dimension(3);
  item.vectorised_elements = 0;
  return item;
}

int sums_of_block(const Plan& plan, const Item& item) {
  return item.operation == Operation::kWindows ? plan.strips.sums : item.measures;
}

// Elementwise items share the device by size; means are small and get a block for each few thousand
// numbers.
void share_out(Plan& plan, const DeviceSize& device) {
  std::int64_t rounds = 0, tiles = 0;
  for (int i = 0; i < plan.item_count; ++i) {
    Item& item = plan.items[i];
    if (item.operation != Operation::kElementwise) continue;
    plan_round(item, plan.weighted, 1);
    rounds += item.channels * rounds_of(item);
  }
  // Threads take one vector each until all multiprocessors are full.
  const std::int64_t deep = rounds / (kResidentBlocks * device.multiprocessors);
  const std::int64_t most = kBlocksPerMultiprocessor * device.multiprocessors;
  for (int i = 0; i < plan.item_count; ++i) {
    Item& item = plan.items[i];
    if (item.operation != Operation::kElementwise) continue;
    plan_round(item, plan.weighted, deep);
    tiles += item.channels * rounds_of(item);
  }
  const std::int64_t tiles_of_block = std::max<std::int64_t>(1, ceil_div(tiles, most));
  for (int i = 0; i < plan.item_count; ++i) {
    Item& item = plan.items[i];
    std::int64_t blocks = 0;
    switch (item.operation) {
      case Operation::kElementwise: blocks = ceil_div(rounds_of(item), tiles_of_block); break;
      case Operation::kMean: blocks = ceil_div(item.elements, 4 * kThreads); break;
      case Operation::kWindows: blocks = item.blocks; break;  // plan_windows knows
    }
    if (item.operation == Operation::kMean) blocks = std::min<std::int64_t>(blocks, device.multiprocessors);
    item.first_block = plan.blocks;
    item.first_partial = plan.blocks;
    item.blocks = static_cast<int>(blocks);
    item.first_sum = plan.sums;
    plan.blocks += item.blocks * item.channels;
    plan.sums += item.channels * sums_of_block(plan, item);
  }
  // Blocks that leave several sums write them behind those of all others.
  int behind = plan.blocks;
  for (int i = 0; i < plan.item_count; ++i) {
    Item& item = plan.items[i];
    if (item.operation != Operation::kWindows && sums_of_block(plan, item) == 1) continue;
    item.first_partial = behind;
    behind += sums_of_block(plan, item) * item.channels * item.blocks;
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
  plan.kl_item = -1;
  if (call.update) plan.update = *call.update;
}

void plan_kl(const LossCall& call, Plan& plan) {
  if (!call.kl) return;
  plan.kl_item = plan.item_count;
  plan.items[plan.item_count++] = mean_item(call.kl, call.kl_gradient);
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
  Item& item = plan.items[input];
  if (measures.empty() && item.operation == Operation::kMean) return;
  limit(measures.size(), kMaxMeasures, "takes", "measures of the differences of a tensor");
  item.measures = static_cast<std::int8_t>(measures.size());
  item.first_measure = static_cast<std::int8_t>(plan.measure_count);
  if (!measures.empty()) plan.measure_set = with_measures(plan, measures, call.inputs[input]);
  const auto same = [](const PlannedMeasure& planned, const Measure& measure) {
    return planned.kind() == measure.kind && planned.eps == measure.eps;
  };
  PlannedMeasure* const end = plan.measures + plan.measure_count;
  const PlannedMeasure* const listed = std::search(plan.measures, end, measures.begin(), measures.end(), same);
  if (listed != end) {
    item.first_measure = static_cast<std::int8_t>(listed - plan.measures);
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
      if (plan.weighted_inputs[r].item != input) continue;
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
  const std::int64_t plain = static_cast<std::int64_t>(kBlocksPerMultiprocessor + kMaxItems) * device.multiprocessors;
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
    Item& item = plan.items[plan.item_count++];
    if (is_scalar(constraint.kind)) {
      item = mean_item(input.prediction, input.gradient);
    } else if (is_windowed(constraint.kind)) {
      item = windows_item(input, device);
    } else {
      Weights weights;
      item = elementwise_item(input, per_channel, device, weights);
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

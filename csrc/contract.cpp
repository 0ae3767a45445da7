#include "contract.h"

#include <algorithm>
#include <utility>

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

// Of an example of all of them, per row.
double elements_of_inputs(const LossCall& call, const Constraint& constraint) {
  double elements = 0;
  for (int i : constraint.inputs) elements += elements_per_example(call.inputs[i]);
  return elements / constraint.rows;
}

}  // namespace

double compared_elements(const LossCall& call, const Constraint& constraint) {
  switch (element_rule(constraint.kind)) {
    case ElementRule::kOfInputs: return elements_of_inputs(call, constraint);
    case ElementRule::kTwiceOfInputs: return 2.0 * elements_of_inputs(call, constraint);
    case ElementRule::kOfImage: return static_cast<double>(call.image_elements);
    case ElementRule::kOfPositions: {
      const std::int64_t* sizes = call.inputs[constraint.inputs[0]].prediction.sizes;
      return 2.0 *
             static_cast<double>(positions(sizes[2], constraint.patches) * positions(sizes[3], constraint.patches));
    }
  }
  return 0;
}

std::vector<Measure> measures_of(const LossCall& call, int input) {
  std::vector<Measure> measures;
  for (const Constraint& constraint : *call.constraints) {
    const bool reads = std::find(constraint.inputs.begin(), constraint.inputs.end(), input) != constraint.inputs.end();
    if (!is_elementwise(constraint.kind) || !reads) continue;
    const Measure measure = measure_of(constraint);
    if (std::find(measures.begin(), measures.end(), measure) == measures.end()) measures.push_back(measure);
  }
  std::stable_partition(measures.begin(), measures.end(),
                        [](const Measure& measure) { return measure.kind == ConstraintKind::kSquaredError; });
  return measures;
}

double difference_weight(const Constraint& constraint, const Input& input) {
  if (!constraint.mean || input.weights) return 1.0;
  return static_cast<double>(constraint.rows) /
         (static_cast<double>(constraint.inputs.size()) * elements_per_example(input));
}

std::int64_t numbers_of_patch(const Patches& patches, const Input& images) {
  return patches.size * patches.size * (patches.per_channel ? 1 : images.prediction.sizes[1]);
}

double patch_weight(const Patches& patches, const Input& images) {
  const std::int64_t* sizes = images.prediction.sizes;
  const std::int64_t groups = patches.per_channel ? sizes[1] : 1;
  return 1.0 / static_cast<double>(groups * positions(sizes[2], patches) * positions(sizes[3], patches));
}

LoopNest loop_nest(const Input& input, bool per_channel) {
  LoopNest result;
  std::vector<Loop> dimensions;
  const Tensor& order = input.gradient ? input.gradient : input.prediction;
  for (int d = 0; d < input.prediction.rank; ++d) {
    const Loop dimension{
        {input.prediction.sizes[d], input.prediction.strides[d], input.target.strides[d], order.strides[d]},
        input.weights.strides[d]};
    if (per_channel && d == 1) {
      result.channel = dimension;
    } else if (dimension.size != 1) {
      dimensions.push_back(dimension);
    }
  }
  std::stable_sort(dimensions.begin(), dimensions.end(),
                   [](const Loop& a, const Loop& b) { return a.gradient > b.gradient; });
  std::vector<Loop> merged;
  for (const Loop& d : dimensions) {
    Loop* last = merged.empty() ? nullptr : &merged.back();
    if (last && last->prediction == d.prediction * d.size && last->target == d.target * d.size &&
        last->gradient == d.gradient * d.size && last->weights == d.weights * d.size) {
      const std::int64_t size = last->size * d.size;
      *last = d;
      last->size = size;
    } else {
      merged.push_back(d);
    }
  }
  if (!merged.empty()) {
    result.inner = merged.back();
    merged.pop_back();
  }
  for (const Loop& d : merged) result.iterations *= d.size;
  result.outer = std::move(merged);
  return result;
}

Offsets offsets_of(const LoopNest& loops, std::int64_t channel, std::int64_t iteration) {
  Offsets at{channel * loops.channel.prediction, channel * loops.channel.target, channel * loops.channel.gradient,
             channel * loops.channel.weights};
  for (auto d = loops.outer.rbegin(); d != loops.outer.rend(); ++d) {
    const std::int64_t index = iteration % d->size;
    iteration /= d->size;
    at.prediction += index * d->prediction;
    at.target += index * d->target;
    at.gradient += index * d->gradient;
    at.weights += index * d->weights;
  }
  return at;
}

}  // namespace geco

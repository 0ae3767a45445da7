// The inputs of a call that need no statistics of patches.
#pragma once

#include "cuda/block.cuh"
#include "cuda/memory.h"
#include "cuda/reduce.h"
#include "cuda/squared_error.cuh"

namespace geco::cuda {

// kl and scalar constraints: the mean of one number per example; its gradient is the same for each. Returns this
// thread's part of the sum of a share.
__device__ inline double mean(const Item& item, const Share& share, const Shared& shared) {
  __syncthreads();
  double sum = 0;
  const std::int64_t step = static_cast<std::int64_t>(item.blocks) * kThreads;
  for (std::int64_t i = share.index * kThreads + threadIdx.x; i < item.elements; i += step) {
    sum += read_element<double>(item.prediction, item.type_of_prediction(), i * item.inner.prediction);
    if (item.gradient) {
      write_gradient(item.gradient, item.type_of_prediction(), i * item.inner.gradient, shared.coefficient);
    }
  }
  return sum;
}

// CLA: one example a warp, one class a lane at a time, in float64.

// The probability of class j, given the largest logit and the sum of exponentials (0 and 1 for probabilities).
__device__ __forceinline__ double probability(const Item& item, double score, double largest, double total) {
  return item.from_logits ? exp(score - largest) / total : score;
}

// Sum of kappa - p_label over the examples of this share, in lane 0 of each warp. A label out of range makes it NaN.
__device__ __noinline__ inline double class_probability(const Plan& plan, const Item& item, const Share& share,
                                                        const Shared& shared) {
  __syncthreads();
  constexpr ScaleRule kRule = scale_rule(ConstraintKind::kClassProbability);
  double kappa = 0;
  for (int t = 0; t < plan.constraint_count; ++t) {
    const PlannedConstraint& constraint = plan.constraints[t];
    if (plan.weighted_inputs[constraint.first_input].item == share.item)
      kappa = plan.state.at(Row::kKappa, constraint.first_row);
  }
  const std::int64_t classes = item.inner.size;
  double sum = 0;
  for (std::int64_t b = share.index * kWarps + warp(); b < item.elements; b += item.blocks * kWarps) {
    const std::int64_t label = static_cast<const std::int64_t*>(item.target)[b * item.outer[0].target];
    const auto score = [&](std::int64_t j) {
      return read_element<double>(item.prediction, item.type_of_prediction(),
                                  b * item.outer[0].prediction + j * item.inner.prediction);
    };
    double largest = 0, total = 1;
    if (item.from_logits) {
      largest = score(0);
      for (std::int64_t j = lane(); j < classes; j += kWarpSize) largest = max(largest, score(j));
      largest = warp_max(largest);
      total = 0;
      for (std::int64_t j = lane(); j < classes; j += kWarpSize) total += exp(score(j) - largest);
      total = warp_sum(total);
    }
    const bool in_range = label >= 0 && label < classes;
    const double p_label = in_range ? probability(item, score(label), largest, total) : nan("");
    if (lane() == 0) sum += constraint_value(kRule, p_label, kappa);
    if (!item.gradient) continue;
    for (std::int64_t j = lane(); j < classes; j += kWarpSize) {
      const bool is_label = j == label;
      const double derivative = class_derivative(item.from_logits, item.log_gradient, p_label,
                                                 probability(item, score(j), largest, total), is_label);
      write_gradient(item.gradient, item.type_of_prediction(), b * item.outer[0].gradient + j * item.inner.gradient,
                     sign_of_measured(kRule) * shared.coefficient * derivative);
    }
  }
  return sum;
}

// The block's share of such an item, its sum handed in.
template <bool mixed_types>
__device__ __forceinline__ void elementwise(const Plan& plan, const Share& share, Shared& shared) {
  double sum = 0;
  if (plan.item_count > 0) {
    const Item& item = plan.items[share.item];
    if (threadIdx.x == 0) shared.coefficient = item.gradient ? coefficient_of(plan, share) : 0.0;
    switch (item.operation) {
      case Operation::kSquaredError: sum = squared_error<mixed_types>(item, share, shared); break;
      case Operation::kClassProbability: sum = class_probability(plan, item, share, shared); break;
      case Operation::kMean: sum = mean(item, share, shared); break;
      case Operation::kWindows: break;  // not here
    }
  }
  sum = block_sum(sum, shared.of_warps);
  if (threadIdx.x == 0) plan.partials[blockIdx.x] = sum;
}

}  // namespace geco::cuda

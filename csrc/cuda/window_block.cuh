// What a block with windows shares: rules and coefficients, made once, and the sums of its threads.
#pragma once

#include <limits>

#include "cuda/block.cuh"
#include "cuda/reduce.h"
#include "cuda/window_memory.h"
#include "math/patch.h"

namespace geco::cuda {

template <class Real>
struct WindowRule {
  PatchRule<Real> rule;
  ConstraintKind kind;
};
static_assert(sizeof(WindowRule<double>) <= kRuleBytes);

template <class Real>
struct WindowShared {
  WindowRule<Real>* rules;  // of each window
  double* squared_error;    // coefficients: of each channel, or one
  int squared_errors;       // how many
  int others;               // measures beside squared differences: their coefficients and sums follow
  double* of_warps;
  double* sums;  // of this thread, kWarpSize apart
  Real* rings;   // of this warp
};

template <class Real>
__device__ __forceinline__ WindowShared<Real> window_shared(const Plan& plan, Shared& shared) {
  const WindowMemory memory = window_memory(plan.strips, plan.window_count);
  auto* start = reinterpret_cast<unsigned char*>(&shared);
  const auto at = [start](int bytes) { return static_cast<void*>(start + bytes); };
  WindowShared<Real> result;
  result.rules = static_cast<WindowRule<Real>*>(at(memory.rules));
  result.squared_error = static_cast<double*>(at(memory.squared_error));
  const Operand& operand = plan.operands[0];
  const bool squared =
      operand.measures > 0 && plan.measures[operand.first_measure].kind() == ConstraintKind::kSquaredError;
  result.squared_errors = squared ? plan.strips.of_measure : 0;
  result.others = operand.measures - (squared ? 1 : 0);
  result.of_warps = static_cast<double*>(at(memory.of_warps));
  result.sums = static_cast<double*>(at(memory.sums)) + warp() * plan.strips.sums * kWarpSize + lane();
  result.rings = static_cast<Real*>(at(memory.rings + warp() * memory.ring_of_warp));
  return result;
}

// A smaller one would divide flat patches by zero.
template <class Real>
constexpr Real kLeastEps = std::numeric_limits<Real>::min();

// The derivative of lambda C by the statistics of one patch, and what else its formula needs.
template <class Real>
__device__ inline PatchRule<Real> rule_of(const Plan& plan, const Operand& operand, const Window& window) {
  const PlannedConstraint& constraint = plan.constraints[window.constraint];
  // Kernels for any size weigh a pixel's sums of squares by its channels already.
  const double channels = plan.strips.kernel.size == 0 ? 1.0 : static_cast<double>(plan.strips.kernel.channels);
  const double numbers = static_cast<double>(window.size) * static_cast<double>(window.size) *
                         static_cast<double>(window.per_channel ? 1 : operand.channel.size);
  const double weight = plan.weighted_inputs[constraint.first_input].weight / (divisor_of(plan, operand) * numbers);
  const double derivative = multiplier_of(plan, constraint, constraint.first_row) * weight;
  // A single number correlates with any other: no gradient, where rounding would leave some.
  const bool constant = constraint.kind() == ConstraintKind::kPatchCorrelation && numbers == 1;
  const double size = static_cast<double>(window.size);
  return {static_cast<Real>(1.0 / (size * size * channels)), max(representable_eps<Real>(window.eps), kLeastEps<Real>),
          static_cast<Real>(constant ? 0.0 : sign_of_measured(constraint.scale()) * derivative)};
}

template <class Real>
__device__ inline void prepare_windows(const Plan& plan, const Operand& operand, const BlockPart& part,
                                       const WindowShared<Real>& shared) {
  for (int w = static_cast<int>(threadIdx.x); w < plan.window_count; w += kThreads) {
    shared.rules[w] = {rule_of<Real>(plan, operand, plan.windows[w]),
                       plan.constraints[plan.windows[w].constraint].kind()};
  }
  const int of_measure = plan.strips.of_measure;
  for (int i = static_cast<int>(threadIdx.x); i < plan.strips.sums - plan.window_count; i += kThreads) {
    shared.squared_error[i] = coefficient_of(plan, {part.operand, part.channel + i % of_measure, 0}, i / of_measure);
  }
  __syncthreads();
}

// The sums of all threads, in a fixed order, to the partial sums of the block.
template <class Real>
__device__ inline void hand_in_windows(const Plan& plan, const Operand& operand, const BlockPart& part,
                                       const WindowShared<Real>& shared) {
  const int sums = plan.strips.sums;
  for (int s = 0; s < sums; ++s) {
    const double sum = warp_sum(warp() < plan.strips.warps ? shared.sums[s * kWarpSize] : 0.0);
    if (lane() == 0) shared.of_warps[s * kWarps + warp()] = sum;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int s = 0; s < sums; ++s) {
    double total = 0;
    for (int w = 0; w < kWarps; ++w) total += shared.of_warps[s * kWarps + w];
    plan.partials[operand.first_partial + (part.channel * sums + s) * operand.blocks + part.index] = total;
  }
}

}  // namespace geco::cuda

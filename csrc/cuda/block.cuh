// What a block of the Lagrangian kernel knows and shares.
#pragma once

#include "cuda/launch.h"
#include "cuda/plan.h"
#include "cuda/threads.h"
#include "math/measure.h"
#include "math/multiplier.h"

namespace geco::cuda {

struct Shared {
  double coefficients[kMaxMeasures];  // of an operand
  double of_warps[kWarps];
  unsigned is_last;
  double numbers[1];  // as many as shared_bytes_of asks for: a plan's sums, then C_hat, then lambda C

  __device__ double* sums() { return numbers; }
  __device__ double* c_hat(const Plan& plan) { return numbers + plan.sums; }
  __device__ double* penalty(const Plan& plan) { return c_hat(plan) + plan.state.constraints; }
};

static_assert(sizeof(Shared) <= kSharedHead + sizeof(double));

inline std::size_t shared_bytes_of(const Plan& plan) {
  return sizeof(Shared) + sizeof(double) * static_cast<std::size_t>(plan.sums + 2 * plan.state.constraints);
}

// The part of an operand that a block does.
struct BlockPart {
  int operand, channel;
  std::int64_t index;  // of operand.blocks
};

__device__ __forceinline__ BlockPart part_of(const Plan& plan, int block) {
  int i = plan.operand_count - 1;
  while (i > 0 && block < plan.operands[i].first_block) --i;
  const Operand& operand = plan.operands[i];
  const int index = block - operand.first_block;
  const int channel = operand.blocks > 0 ? index / operand.blocks : 0;
  return {i, channel, index - channel * operand.blocks};
}

__device__ __forceinline__ int row_of(const PlannedConstraint& constraint, int channel) {
  return constraint.first_row + (constraint.rows > 1 ? channel : 0);
}

__device__ __forceinline__ double multiplier_of(const Plan& plan, const PlannedConstraint& constraint, int row) {
  return exp(log_multiplier(constraint.scale(), plan.state, row, constraint.elements));
}

// What the direction of a measure of this part (the derivative of its mean) is multiplied by: the coefficients of all
// constraints that share it add up.
__device__ inline double coefficient_of(const Plan& plan, const BlockPart& part, int measure) {
  const double divisor = divisor_of(plan, plan.operands[part.operand]);
  if (part.operand == plan.kl_operand) return 1.0 / divisor;
  double coefficient = 0;
  for (int t = 0; t < plan.constraint_count; ++t) {
    const PlannedConstraint& constraint = plan.constraints[t];
    for (int r = constraint.first_input; r < constraint.first_input + constraint.inputs; ++r) {
      if (plan.weighted_inputs[r].operand != part.operand || plan.weighted_inputs[r].measure != measure) continue;
      if (is_windowed(constraint.kind())) continue;  // it has coefficients of its own
      const double multiplier = multiplier_of(plan, constraint, row_of(constraint, part.channel));
      coefficient += is_elementwise(constraint.kind())
                         ? measure_coefficient(constraint.kind(), multiplier, plan.weighted_inputs[r].weight, divisor)
                         : sign_of_measured(constraint.scale()) * multiplier / divisor;
    }
  }
  return coefficient;
}

}  // namespace geco::cuda

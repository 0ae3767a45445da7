// The end of a call: the last block to arrive adds up what all blocks found, moves the state and writes the loss.
#pragma once

#include "cuda/block.cuh"
#include "cuda/memory.h"
#include "cuda/reduce.h"

namespace geco::cuda {

__device__ __forceinline__ bool is_finite(double value) { return value - value == 0.0; }

// A warp for each sum, its partial sums in a fixed order.
__device__ inline void add_partials(const Plan& plan, Shared& shared) {
  constexpr int kUnroll = 8;
  for (int s = warp(); s < plan.sums; s += kWarps) {
    int i = plan.operand_count - 1;
    while (i > 0 && s < plan.operands[i].first_sum) --i;
    const Operand& operand = plan.operands[i];
    const double* partials = plan.partials + operand.first_partial + (s - operand.first_sum) * operand.blocks;
    double sum = 0;
    for (int first = lane(); first < operand.blocks; first += kUnroll * kWarpSize) {
      double part[kUnroll];
#pragma unroll
      for (int k = 0; k < kUnroll; ++k) {
        part[k] = first + k * kWarpSize < operand.blocks ? __ldcg(partials + first + k * kWarpSize) : 0.0;
      }
#pragma unroll
      for (int k = 0; k < kUnroll; ++k) sum += part[k];
    }
    sum = warp_sum(sum);
    if (lane() == 0) shared.sums()[s] = sum;
  }
  __syncthreads();
}

// The sum that a row needs of those of an operand with windows: channel after channel, where blocks work on one channel
// each, the sums of a block follow one another.
__device__ inline double sum_of_windows(const Plan& plan, Shared& shared, const Operand& operand, int sum, int count) {
  double total = 0;
  for (int channel = 0; channel < operand.channels; ++channel) {
    for (int i = sum; i < sum + count; ++i) {
      total += shared.sums()[operand.first_sum + channel * plan.strips.sums + i];
    }
  }
  return total;
}

__device__ inline double elementwise_beside_windows(const Plan& plan, Shared& shared, const Operand& operand,
                                                    int measure, const PlannedConstraint& constraint, int row) {
  const int count = plan.strips.of_measure, first = plan.window_count + measure * count;
  const int channel = row - constraint.first_row;
  if (constraint.rows == 1) return sum_of_windows(plan, shared, operand, first, count);
  if (operand.channels == 1) return shared.sums()[operand.first_sum + first + channel];
  return shared.sums()[operand.first_sum + channel * plan.strips.sums + first];
}

__device__ inline double windowed_constraint(const Plan& plan, Shared& shared, const PlannedConstraint& constraint,
                                             int row) {
  const WeightedInput& input = plan.weighted_inputs[constraint.first_input];
  const Operand& operand = plan.operands[input.operand];
  int window = 0;
  while (&plan.constraints[plan.windows[window].constraint] != &constraint) ++window;
  const double mean = sum_of_windows(plan, shared, operand, window, 1) * input.weight / divisor_of(plan, operand);
  return constraint_value(constraint.scale(), mean, plan.state.at(Row::kKappa, row));
}

// C_hat of a row from the sums of the operands it reads (Table 1 of "Taming VAEs").
__device__ inline double constraint_of(const Plan& plan, Shared& shared, const PlannedConstraint& constraint, int row) {
  double c = 0;
  if (is_elementwise(constraint.kind())) {
    for (int r = constraint.first_input; r < constraint.first_input + constraint.inputs; ++r) {
      const Operand& operand = plan.operands[plan.weighted_inputs[r].operand];
      if (operand.operation == Operation::kWindows) {
        c += elementwise_beside_windows(plan, shared, operand, plan.weighted_inputs[r].measure, constraint, row) *
             plan.weighted_inputs[r].weight / divisor_of(plan, operand);
        continue;
      }
      const double weight = plan.weighted_inputs[r].weight;
      const double* const sums = shared.sums() + operand.first_sum + plan.weighted_inputs[r].measure;
      if (constraint.rows > 1) {
        c += weight * sums[(row - constraint.first_row) * operand.measures] / divisor_of(plan, operand);
      } else {
        for (int channel = 0; channel < operand.channels; ++channel) {
          c += weight * sums[channel * operand.measures] / divisor_of(plan, operand);
        }
      }
    }
    return constraint_value(constraint.scale(), c, plan.state.at(Row::kKappa, row));
  }
  const Operand& operand = plan.operands[plan.weighted_inputs[constraint.first_input].operand];
  if (operand.operation == Operation::kWindows) return windowed_constraint(plan, shared, constraint, row);
  const double mean = shared.sums()[operand.first_sum] / divisor_of(plan, operand);
  return constraint_value(constraint.scale(), mean, plan.state.at(Row::kKappa, row));
}

__device__ __forceinline__ const PlannedConstraint& constraint_of_row(const Plan& plan, int row) {
  int t = plan.constraint_count - 1;
  while (t > 0 && row < plan.constraints[t].first_row) --t;
  return plan.constraints[t];
}

__device__ __forceinline__ void write_loss(const Plan& plan, double loss) {
  if (plan.loss_is_double) {
    *static_cast<double*>(plan.loss) = loss;
  } else {
    *static_cast<float*>(plan.loss) = static_cast<float>(loss);
  }
}

// From C_hat, in shared memory, to the moved state and the loss. All threads of one block; `kl` enters the loss as
// it is.
__device__ inline void update_and_write_loss(const Plan& plan, Shared& shared, double kl, bool finite,
                                             std::int64_t examples) {
  const int constraints = plan.state.constraints;
  const double* c_hat = shared.c_hat(plan);
  double* penalty = shared.penalty(plan);
  const bool trains = plan.outcome == Outcome::kTraining;
  CallProgress progress{};
  if (trains) {
    for (int l = 0; l < constraints; ++l) finite = finite && is_finite(c_hat[l]);
    progress = call_progress(plan.update, plan.state, finite, examples);
  }
  for (int row = static_cast<int>(threadIdx.x); row < constraints; row += kThreads) {
    const PlannedConstraint& constraint = constraint_of_row(plan, row);
    penalty[row] = trains ? advance_constraint(plan.update, progress, plan.state, row, constraint.scale(),
                                               constraint.elements, c_hat[row], examples)
                          : multiplier_of(plan, constraint, row) * c_hat[row];
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  double loss = 0;
  for (int row = 0; row < constraints; ++row) loss += penalty[row];
  if (trains) advance_counters(plan.update, progress, plan.state);
  write_loss(plan, kl + loss);
}

__device__ inline void write_sums(const Plan& plan, Shared& shared, double kl) {
  const double examples = static_cast<double>(plan.batch);
  const double poison = is_finite(kl) ? 0.0 : nan("");  // all processes then skip the step
  for (int row = static_cast<int>(threadIdx.x); row < plan.state.constraints; row += kThreads) {
    plan.sums_out[row] = shared.c_hat(plan)[row] * examples + poison;
  }
  if (threadIdx.x == 0) plan.sums_out[plan.state.constraints] = examples;
}

// What the last block does with the partial sums.
__device__ inline void reduce_and_update(const Plan& plan, Shared& shared) {
  add_partials(plan, shared);
  double* c_hat = shared.c_hat(plan);
  for (int row = static_cast<int>(threadIdx.x); row < plan.state.constraints; row += kThreads) {
    c_hat[row] = constraint_of(plan, shared, constraint_of_row(plan, row), row);
  }
  const double kl = plan.kl_operand < 0 ? 0.0
                                        : shared.sums()[plan.operands[plan.kl_operand].first_sum] /
                                              divisor_of(plan, plan.operands[plan.kl_operand]);
  __syncthreads();
  if (plan.outcome == Outcome::kSums) {
    write_sums(plan, shared, kl);
  } else {
    update_and_write_loss(plan, shared, kl, is_finite(kl), plan.batch);
  }
}

}  // namespace geco::cuda

// The Lagrangian kernel for calls without windows, and the files that compile it for measures of each kind.
#pragma once

#include "cuda/elementwise.cuh"
#include "cuda/last_block.cuh"

namespace geco::cuda {

// The multipliers of a step are known before it starts: every block computes its own coefficient from the state, and
// nobody writes the state before all blocks have handed in their sums.
template <class Measures>
__global__ void __launch_bounds__(kThreads, Measures::kBlocks) lagrangian_kernel(const __grid_constant__ Plan plan) {
  GECO_DYNAMIC_SHARED(Shared, shared);
  elementwise<Measures, true>(plan, share_of(plan, static_cast<int>(blockIdx.x)), shared);
  if (is_last_block(plan.ticket, gridDim.x, shared.is_last)) reduce_and_update(plan, shared);
}

template <class Measures>
void launch(const Plan& plan, const Place& place) {
  GECO_LAUNCH(lagrangian_kernel<Measures>, static_cast<unsigned>(plan.blocks), shared_bytes_of(plan), place.stream,
              plan);
}

// That of squared differences alone, without weights, stands in step.cu; those of another measure alone, which the plan
// names, with and without weights in one_measure.cu.
void launch_one_measure(const Plan& plan, const Place& place);
void launch_any_measures(const Plan& plan, const Place& place);
void launch_weighted_squares(const Plan& plan, const Place& place);
void launch_weighted_measures(const Plan& plan, const Place& place);

}  // namespace geco::cuda

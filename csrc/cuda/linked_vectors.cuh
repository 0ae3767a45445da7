// Vectors of the kernels that take any measures: a file for each type of predictions, and with weights. The kernels
// call what they are linked with (relocatable device code), once for each block.
#pragma once

#include "cuda/elementwise_vectors.cuh"

namespace geco::cuda {

template <class Measures, class P>
__device__ Sums<Measures::kMost> linked_vectors(const Plan& plan, const Operand& operand, const BlockPart& part,
                                                const Shared& shared) {
  if constexpr (sizeof(P) == 8) return measure_vectors<Measures, P, P>(plan, operand, part, shared);
  return measure_vectors<Measures, P, sizeof(P) != 8>(plan, operand, part, shared);
}

}  // namespace geco::cuda

#define GECO_LINKED_VECTORS(Measures, P)                                                                               \
  template __device__ Sums<Measures::kMost> linked_vectors<Measures, P>(const Plan&, const Operand&, const BlockPart&, \
                                                                        const Shared&)

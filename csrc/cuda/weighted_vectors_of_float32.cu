#include "cuda/linked_vectors.cuh"

namespace geco::cuda {

GECO_LINKED_VECTORS(WeightedMeasures, float);

}  // namespace geco::cuda

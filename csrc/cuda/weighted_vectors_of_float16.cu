#include "cuda/linked_vectors.cuh"

namespace geco::cuda {

GECO_LINKED_VECTORS(WeightedMeasures, Half);

}  // namespace geco::cuda

#include "cuda/linked_vectors.cuh"

namespace geco::cuda {

GECO_LINKED_VECTORS(AnyMeasures, double);

}  // namespace geco::cuda

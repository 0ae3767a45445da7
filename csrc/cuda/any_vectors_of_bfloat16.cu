#include "cuda/linked_vectors.cuh"

namespace geco::cuda {

GECO_LINKED_VECTORS(AnyMeasures, BFloat16);

}  // namespace geco::cuda

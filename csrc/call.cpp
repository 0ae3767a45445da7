#include "call.h"

namespace geco {

std::int64_t Tensor::elements() const {
  std::int64_t count = 1;
  for (int d = 0; d < rank; ++d) count *= sizes[d];
  return count;
}

namespace {

double elements_per_example(const Input& input) {
  return static_cast<double>(input.prediction.elements() / input.prediction.sizes[0]);
}

}  // namespace

double compared_elements(const Call& call, const Term& term) {
  switch (element_rule(term.kind)) {
    case ElementRule::kOfInputs: {
      double elements = 0;
      for (int i : term.inputs) elements += elements_per_example(call.inputs[i]);
      return elements / term.rows;
    }
    case ElementRule::kOfImage: return static_cast<double>(call.image_elements);
    case ElementRule::kOfPositions: {
      const std::int64_t* sizes = call.inputs[term.inputs[0]].prediction.sizes;
      return 2.0 * static_cast<double>(positions(sizes[2], term.patches) * positions(sizes[3], term.patches));
    }
    case ElementRule::kNone: break;
  }
  return 0;
}

double squared_error_weight(const Term& term, const Input& input) {
  if (!term.mean) return 1.0;
  return static_cast<double>(term.rows) / (static_cast<double>(term.inputs.size()) * elements_per_example(input));
}

std::int64_t numbers_of_patch(const Patches& patches, const Input& images) {
  return patches.size * patches.size * (patches.per_channel ? 1 : images.prediction.sizes[1]);
}

double patch_weight(const Patches& patches, const Input& images) {
  const std::int64_t* sizes = images.prediction.sizes;
  const std::int64_t groups = patches.per_channel ? sizes[1] : 1;
  return 1.0 / static_cast<double>(groups * positions(sizes[2], patches) * positions(sizes[3], patches));
}

}  // namespace geco

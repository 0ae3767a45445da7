#include <type_traits>

#include "cuda/lagrangian_kernel.cuh"

namespace geco::cuda {

void launch_one_measure(const Plan& plan, const Place& place) {
  with_measure(plan.measures[0].kind(), [&](auto measure) {
    using Measure = decltype(measure);
    if constexpr (std::is_same_v<Measure, SquaredDifference>) {
      return;  // not here
    } else if (plan.weighted) {
      launch<WeightedMeasure<Measure>>(plan, place);
    } else {
      launch<OneMeasure<Measure>>(plan, place);
    }
  });
}

}  // namespace geco::cuda

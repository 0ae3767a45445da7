#include "cuda/windowed_lagrangian.h"

namespace geco::cuda {

void launch_windowed_lagrangian(const Plan& plan, const Place& place) {
  if (plan.strips.kernel.smaller == 4) return launch_windows_of_4_and_8(plan, place);
  switch (plan.strips.kernel.size) {
    case 4: return launch_windows_of_4(plan, place);
    case 8: return launch_windows_of_8(plan, place);
    case 11: return launch_windows_of_11(plan, place);
    case 16: return launch_windows_of_16(plan, place);
    default: return launch_windows_of_any_size(plan, place);
  }
}

}  // namespace geco::cuda

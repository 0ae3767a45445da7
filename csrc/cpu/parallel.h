// Work is cut into items whose number and order never depend on the number of threads, so results do not either.
#pragma once

#include <cstdint>

namespace geco::cpu {

template <class Function>
void parallel_for(std::int64_t items, int threads, const Function& function) {
  if (threads <= 1 || items <= 1) {
    for (std::int64_t i = 0; i < items; ++i) function(i);
    return;
  }
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::int64_t i = 0; i < items; ++i) function(i);
}

// Below this many elements a team of threads costs more than it saves.
constexpr std::int64_t kParallelElements = 1 << 15;

}  // namespace geco::cpu

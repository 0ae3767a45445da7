// Work is cut into items whose number and order never depend on the number of threads, so results do not either.
#pragma once

#include <cstdint>
#if defined(GECO_STD_THREADS)
#include <thread>
#include <vector>
#endif

namespace geco::cpu {

template <class Function>
void parallel_for(std::int64_t items, int threads, const Function& function) {
  if (threads <= 1 || items <= 1) {
    for (std::int64_t i = 0; i < items; ++i) function(i);
    return;
  }
#if defined(GECO_STD_THREADS)  // for ThreadSanitizer, which takes GCC's OpenMP for a race
  std::vector<std::thread> team;
  for (int t = 0; t < threads; ++t) {
    team.emplace_back([&function, first = items * t / threads, last = items * (t + 1) / threads] {
      for (std::int64_t i = first; i < last; ++i) function(i);
    });
  }
  for (std::thread& member : team) member.join();
#else
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::int64_t i = 0; i < items; ++i) function(i);
#endif
}

// Below this many elements a team of threads costs more than it saves.
constexpr std::int64_t kParallelElements = 1 << 15;

}  // namespace geco::cpu

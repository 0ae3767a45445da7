// Work is cut into items whose number and order never depend on the number of threads, so results do not either.
#pragma once

#include <cstdint>
#include <exception>
#include <vector>
#if defined(GECO_STD_THREADS)
#include <thread>
#endif

namespace geco::cpu {

// An exception of an item is thrown to the caller once all items are done; of several, any.
template <class Function>
void parallel_for(std::int64_t items, int threads, const Function& function) {
  if (threads <= 1 || items <= 1) {
    for (std::int64_t i = 0; i < items; ++i) function(i);
    return;
  }
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(threads));
  const auto run = [&](int thread, std::int64_t first, std::int64_t last) {
    try {
      for (std::int64_t i = first; i < last; ++i) function(i);
    } catch (...) {
      failures[static_cast<std::size_t>(thread)] = std::current_exception();
    }
  };
#if defined(GECO_STD_THREADS)  // for ThreadSanitizer, which takes GCC's OpenMP for a race
  std::vector<std::thread> team;
  for (int t = 0; t < threads; ++t) team.emplace_back(run, t, items * t / threads, items * (t + 1) / threads);
  for (std::thread& member : team) member.join();
#else
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int t = 0; t < threads; ++t) run(t, items * t / threads, items * (t + 1) / threads);
#endif
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

// Below this many elements a team of threads costs more than it saves.
constexpr std::int64_t kParallelElements = 1 << 15;

}  // namespace geco::cpu

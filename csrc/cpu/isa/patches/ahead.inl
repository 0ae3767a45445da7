// Asking the caches for rows before they are needed: images are read and written a piece of a row at a time in many
// places, where no prefetcher of a processor follows.
#pragma once

#include "cpu/isa/patches/numbers.inl"

namespace geco::cpu {
namespace {

constexpr std::int64_t kCacheLine = 64;

// Instructions themselves: GCC 12 leaves out a function that only calls __builtin_prefetch, as one without effects.
struct ForReading {
  static GECO_HD void ask(const char* line) {
#if defined(__SSE2__)
    asm volatile("prefetcht0 %0" : : "m"(*line));
#else
    __builtin_prefetch(line, 0);
#endif
  }
};

struct ForWriting {
  static GECO_HD void ask(const char* line) {
#if defined(__AVX2__)  // processors before may not know it
    asm volatile("prefetchw %0" : : "m"(*line));
#else
    ForReading::ask(line);
#endif
  }
};

// Some numbers of all channels of a row.
template <class Access>
void ask_for_row(const Planes& planes, std::int64_t channels, std::int64_t row, std::int64_t column,
                 std::int64_t count) {
  if (planes.data == nullptr) return;
  const bool interleaved = planes.channel_stride == 1;
  if (!interleaved && planes.column_stride != 1) return;  // each number in a line of its own
  const std::int64_t size = size_of(planes.type);
  const char* begin = planes.data + (row * planes.row_stride + column * planes.column_stride) * size;
  const std::int64_t bytes = count * planes.column_stride * size;
  for (std::int64_t c = 0; c < (interleaved ? 1 : channels); ++c, begin += planes.channel_stride * size) {
    // Four lines at a time: to ask for one that is not there does no harm.
    for (const char* line = begin; line < begin + bytes; line += 4 * kCacheLine) {
      for (int i = 0; i < 4; ++i) Access::ask(line + i * kCacheLine);
    }
  }
}

}  // namespace
}  // namespace geco::cpu

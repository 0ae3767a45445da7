// Memory that each thread keeps from call to call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace geco::cpu {

class ThreadScratch {
 public:
  // At a multiple of 64 bytes. What it holds is left from before, zeros at first: vectors reach beyond the numbers in
  // use, and denormals there would be slow.
  char* at_least(std::int64_t bytes) {
    if (bytes > bytes_) {
      release();
      memory_ = static_cast<char*>(std::aligned_alloc(64, static_cast<std::size_t>(bytes)));
      if (memory_ == nullptr) throw std::bad_alloc();
      std::fill_n(memory_, bytes, char{0});
      bytes_ = bytes;
    }
    return memory_;
  }

  // Gives back what is more than `most` bytes.
  void trim(std::int64_t most) {
    if (bytes_ > most) release();
  }

  ~ThreadScratch() { release(); }

 private:
  void release() {
    std::free(memory_);
    memory_ = nullptr;
    bytes_ = 0;
  }

  char* memory_ = nullptr;
  std::int64_t bytes_ = 0;
};

inline ThreadScratch& thread_scratch() {
  thread_local ThreadScratch scratch;
  return scratch;
}

}  // namespace geco::cpu

// Where the windows of a block keep what in shared memory. The host asks for it, the kernel finds it.
#pragma once

#include "cuda/plan.h"
#include "cuda/threads.h"

namespace geco::cuda {

// A WindowRule<double> has 32. At that distance the compiler orders loads so that, by bench/predictions.py, the loop of
// RE + pNCC 8 takes 8% more cycles.
constexpr int kRuleBytes = 40;

// Bytes from the start of shared memory.
struct WindowMemory {
  int rules;                // one WindowRule for each window
  int squared_error;        // coefficients of squared errors
  int of_warps;             // sums of warps
  int sums;                 // of each thread that takes strips: a double for each sum
  int rings, ring_of_warp;  // rows of windows, and how many bytes a warp has of them
  int end;
};

GECO_HD WindowMemory window_memory(const Strips& strips, int windows) {
  WindowMemory memory{};
  memory.rules = strips.shared_at;
  memory.squared_error = memory.rules + windows * kRuleBytes;
  memory.of_warps = memory.squared_error + (strips.sums - windows) * 8;
  memory.sums = memory.of_warps + strips.sums * kWarps * 8;
  memory.rings = (memory.sums + strips.warps * strips.sums * kWarpSize * 8 + 15) / 16 * 16;
  const int number = strips.kernel.images == ImageTypes::kDouble ? 8 : 4;
  memory.ring_of_warp = strips.ring_numbers * strips.ring_lanes * number;
  memory.end = memory.rings + strips.warps * memory.ring_of_warp;
  return memory;
}

}  // namespace geco::cuda

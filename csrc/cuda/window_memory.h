// Where the windows of a block keep what in shared memory. The host asks for it, the kernel finds it.
#pragma once

#include "cuda/plan.h"
#include "cuda/threads.h"

namespace geco::cuda {

// A patch of up to 2^kLevels - 1 pixels a side: windows of 1, 2, 4, ... pixels.
constexpr int kLevels = 7;

// The levels of a window keep the rows they will need again: 1, 2, 4, ... of them, and the highest one as many as the
// smaller digits of the size have. Together that is one less than the patch is high.
GECO_HD constexpr int ring_rows(int size) { return size - 1; }

// Numbers of a column in a row of the rings: the moments of a patch, then its coefficients.
constexpr int kMomentNumbers = 5, kCoefficientNumbers = 3;
constexpr int kRingNumbers = kMomentNumbers + kCoefficientNumbers;

constexpr int kRuleBytes = 32, kDigitsBytes = kLevels * 16;

// Bytes from the start of shared memory.
struct WindowMemory {
  int rules;                // one PatchRule for each window
  int digits;               // kLevels MergeWeights for each window
  int squared_error;        // coefficients of squared errors
  int of_warps;             // sums of warps
  int sums;                 // of each thread that takes strips: a double for each sum
  int rings, ring_of_warp;  // rows of numbers, and how many bytes a warp has of them
  int end;
};

GECO_HD WindowMemory window_memory(const Strips& strips, int windows) {
  WindowMemory memory{};
  memory.rules = strips.shared_at;
  memory.digits = memory.rules + windows * kRuleBytes;
  memory.squared_error = memory.digits + windows * kDigitsBytes;
  memory.of_warps = memory.squared_error + (strips.sums - windows) * 8;
  memory.sums = memory.of_warps + strips.sums * kWarps * 8;
  memory.rings = (memory.sums + strips.warps * strips.sums * kWarpSize * 8 + 15) / 16 * 16;
  const int row = kRingNumbers * strips.ring_columns * (strips.images == ImageTypes::kDouble ? 8 : 4);
  memory.ring_of_warp = (strips.ring_rows * row + 15) / 16 * 16;
  memory.end = memory.rings + strips.warps * memory.ring_of_warp;
  return memory;
}

}  // namespace geco::cuda

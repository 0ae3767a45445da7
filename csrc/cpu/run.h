// The innermost loops, one table of them per instruction set.
#pragma once

#include <cstdint>

#include "call.h"
#include "cpu/window_sweep.h"

namespace geco::cpu {

// A run is a line of elements at constant strides in prediction, target and gradient.
struct Run {
  const void* prediction;
  const void* target;
  void* gradient;  // null: not wanted
  std::int64_t length;
  std::int64_t prediction_stride, target_stride, gradient_stride;  // in elements
};

// Writes gradient = coefficient * (prediction - target), returns sum (prediction - target)^2.
// `stream` writes past the caches: for gradients that will not be in a cache when they are read.
using SquaredErrorRun = double (*)(const Run& run, double coefficient, bool stream);

// out = in * factor, float32 in, rounded once to the type of out. `in` may be `out` when the types agree.
using ScaleRun = void (*)(const float* in, void* out, std::int64_t length, float factor);

struct RunTable {
  const char* name;
  SquaredErrorRun squared_error[4][4];  // [type of prediction][type of target]
  ScaleRun scale[4];                    // [type of out]
  WindowScratch window_scratch[2];      // in float32, in float64
  WindowSweep window_sweep[2];
};

const RunTable& baseline_table();
const RunTable& avx2_table();
const RunTable& avx512_table();

// The widest set this processor has; GECO_EXT_CPU_CAPABILITY=baseline|avx2|avx512 asks for a narrower one.
const RunTable& run_table();

inline std::int64_t size_of(DataType type) {
  switch (type) {
    case DataType::kFloat64:
    case DataType::kInt64: return 8;
    case DataType::kFloat32: return 4;
    default: return 2;
  }
}

}  // namespace geco::cpu

// The innermost loops, compiled once per instruction set: what they take, and the table of them.
#pragma once

#include <cstdint>
#include <vector>

#include "contract.h"
#include "cpu/isa/patches/sweep.h"

namespace geco::cpu {

// Elements at constant strides in prediction, target, gradient and weights.
struct InnerLoop {
  const void* prediction;
  const void* target;
  void* gradient;       // null: not wanted
  const void* weights;  // null where the kernel takes none
  bool adds;            // to what the gradient holds
  std::int64_t length;
  std::int64_t prediction_stride, target_stride, gradient_stride, weights_stride;  // in elements
};

// Writes or adds coefficient * direction of the measure of prediction - target (math/elementwise.h) to the gradient,
// returns the sum of its values. `stream` writes past the caches: for gradients that will not be in a cache when they
// are read.
using MeasureLoop = double (*)(const InnerLoop& loop, double eps, double coefficient, bool stream);

// out = in * factor, float32 in, rounded once to the type of out. `in` may be `out` when the types agree.
using ScaleLoop = void (*)(const float* in, void* out, std::int64_t length, float factor);

// The part of a call of a model that a thread computes at a time: examples, rows of each, and numbers of each row.
struct Block {
  std::int64_t first_example, examples, first_row, rows, begin, length;
};

// Sums over the part of each example that lies in the block, one for each example of the block, are written to `sums`
// by those kernels that have them.
template <class Call>
using BlockKernel = void (*)(const Call& call, const Block& block, double* sums);

// First index: the type of the numbers, as in DataType.
struct KernelTable {
  const char* instruction_set;
  MeasureLoop measures[kMeasureKinds][4][4];  // [kind][type of prediction][type of target]
  MeasureLoop weighted[kMeasureKinds][4][4];  // the same with weights
  ScaleLoop scale[4];                         // [type of out]
  SweepScratch patches_scratch[2];            // in float32, in float64
  PatchSweep patches[2];
  BlockKernel<GaussianCall> gaussian[4][2];  // [type][with a prior of its own]
  BlockKernel<GaussianBackwardCall> gaussian_backward[4][2];
  BlockKernel<GatesCall> gates[4];
  BlockKernel<GatesBackwardCall> gates_backward[4];
  BlockKernel<CouplingCall> coupling[4][2];  // [type][inverse]
  BlockKernel<CouplingBackwardCall> coupling_backward[4][2];
};

const KernelTable& baseline_kernels();
const KernelTable& avx2_kernels();
const KernelTable& avx512_kernels();

// Those that this processor can run, narrowest first.
std::vector<const KernelTable*> supported_kernels();

// The widest of them, or those that the environment variable GECO_EXT_CPU_CAPABILITY names (baseline, avx2, avx512);
// throws std::invalid_argument where it names others.
const KernelTable& kernels();

}  // namespace geco::cpu

// The innermost loops of the models' kernels, one table of them per instruction set.
#pragma once

#include <cstdint>

#include "model_call.h"

namespace geco::cpu {

// Examples, rows of each, and numbers of each row.
struct Block {
  std::int64_t first_example, examples, first_row, rows, begin, length;
};

// Sums over the part of each example that lies in the block, one for each example of the block, are written to `sums`
// by those kernels that have them.
template <class Call>
using BlockKernel = void (*)(const Call& call, const Block& block, double* sums);

struct ModelTable {
  BlockKernel<GaussianCall> gaussian[4][2];  // [type][with a prior of its own]
  BlockKernel<GaussianBackwardCall> gaussian_backward[4][2];
  BlockKernel<GatesCall> gates[4];
  BlockKernel<GatesBackwardCall> gates_backward[4];
  BlockKernel<CouplingCall> coupling[4][2];  // [type][inverse]
  BlockKernel<CouplingBackwardCall> coupling_backward[4][2];
};

const ModelTable& baseline_models();
const ModelTable& avx2_models();
const ModelTable& avx512_models();

// Of the instruction set that run_table() has chosen.
const ModelTable& model_table();

}  // namespace geco::cpu

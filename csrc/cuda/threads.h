// Sizes that the host plans with and the kernels are compiled for.
#pragma once

#include <cstdint>

#include "math/macros.h"

#if !defined(GECO_CUDA_THREADS)
#define GECO_CUDA_THREADS 256
#endif

namespace geco::cuda {

constexpr int kThreads = GECO_CUDA_THREADS;  // of a block
constexpr int kWarpSize = 32;
constexpr int kWarps = kThreads / kWarpSize;

// Blocks of the Lagrangian kernel that a multiprocessor holds: its registers allow 128 for a thread then, and 128 KiB
// of float32 are in flight.
constexpr int kResidentBlocks = 2;

// Numbers of a vector: its float32 (or float64) gradient is one 16-byte store. Half types load 8 bytes then; a 16-byte
// load of eight would make a thread write two stores, each leaving every other 16 bytes to the next.
GECO_HD constexpr int width_of(std::int64_t prediction_bytes) { return prediction_bytes == 8 ? 2 : 4; }

// Vectors of predictions, and as many of targets, that a thread has in flight: 256 bytes, of half types 128. Where
// inner loops lie apart, with weights, and of float64, registers are left for half of them.
GECO_HD constexpr int unrolled_vectors(std::int64_t prediction_bytes, bool needs_registers) {
  return needs_registers || prediction_bytes == 8 ? 4 : 8;
}

// Single elements that a thread has in flight where strides allow no vectors.
GECO_HD constexpr int elements_of_thread(std::int64_t compute_bytes) { return compute_bytes == 8 ? 4 : 8; }

}  // namespace geco::cuda

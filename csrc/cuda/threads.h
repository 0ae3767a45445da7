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

// Blocks of the Lagrangian kernel that a multiprocessor holds: its registers allow 80 for a thread then, and 96 KiB are
// in flight.
constexpr int kResidentBlocks = 3;

// The same of the kernel with windows, by the columns of a lane: registers allow 128 or 255 for a thread, and shared
// memory for the rings of warps would not allow many more blocks.
GECO_HD constexpr int resident_window_blocks(bool is_double, int columns) { return !is_double && columns <= 2 ? 2 : 1; }

// Numbers of a vector: its float32 (or float64) gradient is one 16-byte store. Half types load 8 bytes then; a 16-byte
// load of eight would make a thread write two stores, each leaving every other 16 bytes to the next.
GECO_HD constexpr int width_of(std::int64_t prediction_bytes) { return prediction_bytes == 8 ? 2 : 4; }

// Vectors that a thread has in flight: about 128 bytes of predictions and targets.
GECO_HD constexpr int unroll_of(std::int64_t prediction_bytes, std::int64_t target_bytes) {
  const std::int64_t bytes = width_of(prediction_bytes) * (prediction_bytes + target_bytes);
  return bytes <= 16 ? 8 : 4;
}

// Single elements that a thread has in flight where strides allow no vectors.
GECO_HD constexpr int elements_of_thread(std::int64_t compute_bytes) { return compute_bytes == 8 ? 4 : 8; }

}  // namespace geco::cuda

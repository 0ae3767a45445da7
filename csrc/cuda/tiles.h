// How blocks go over elements that do not lie in vectors: strides of any kind, a base off the grid of 16 bytes.
//
// The threads of a block form a box, its sides powers of two, and have one element each; a tile is a few such boxes
// next to each other along one dimension, whose elements a thread has in flight together. Tiles are numbered, innermost
// dimension first, and a block takes every operand.blocks-th one. Bits of a thread's number say where it lies in the
// box, and from tile to tile indices only add up: nothing is divided but the number of the first tile.
//
// Single elements keep up with memory where the lanes of a warp read neighbours: 32 elements in float32 with their
// gradient are three requests, and on an H100 26 cycles of a multiprocessor's share of the bandwidth. Where operands
// have different innermost dimensions, as channels_last beside contiguous, the box has sides along both: 8 by 4 lanes
// of a warp touch 4 sectors of one operand and 8 of the other, and the block reads the rest of those at the same time.
#pragma once

#include "cuda/plan.h"
#include "cuda/threads.h"

namespace geco::cuda {

// Dimension 0 is the innermost.
GECO_HD const Dimension& dimension_of(const Operand& operand, int d) {
  return d == 0 ? operand.inner : operand.outer[operand.outer_dimensions - d];
}

// Along that dimension.
GECO_HD std::int64_t stride_of(const Weights& weights, const Operand& operand, int d) {
  return d == 0 ? weights.inner : weights.outer[operand.outer_dimensions - d];
}

// Logarithms to base 2 of the sides of box and tile.
GECO_HD int box_bits(const Operand& operand, int d) { return operand.box >> 4 * d & 15; }
GECO_HD int tile_bits(const Operand& operand, int d) {
  return box_bits(operand, d) + (d == operand.unrolled ? operand.unroll_bits : 0);
}

GECO_HD std::int64_t tiles_along(const Operand& operand, int d) {
  const int bits = tile_bits(operand, d);
  return (dimension_of(operand, d).size + (std::int64_t{1} << bits) - 1) >> bits;
}

// Of a channel; fewer than 2^31.
GECO_HD std::int64_t tiles_of(const Operand& operand) {
  std::int64_t tiles = 1;
  for (int d = 0; d <= operand.outer_dimensions; ++d) tiles *= tiles_along(operand, d);
  return tiles;
}

// Where there are vectors instead: how many elements of an inner loop lie in them.
GECO_HD std::int64_t elements_in_vectors(const Operand& operand) {
  return (operand.inner.size - operand.head) &
         -static_cast<std::int64_t>(width_of(size_of(operand.type_of_prediction())));
}

}  // namespace geco::cuda

// Which threads and blocks of a model kernel compute which numbers of which example.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "cuda/models.h"

namespace geco::cuda {

// A group of threads goes over an example, vector by vector (a grid-stride loop). A block has as many groups as fit;
// for a large example several blocks are one group. All operands have the same example, row and column at a step.
struct ExampleGrid {
  std::int64_t batch, vectors;  // of an example
  std::int64_t row_vectors;     // of a row; rows that follow one another in all operands are one
  std::int64_t row_numbers;     // of a row of the cell: how far apart its gates are
  int width;                    // numbers of a vector: 16 bytes, or one number
  int group;                    // threads of a block for an example, a power of two
  int blocks_of_example;
  int blocks;
  double* partials = nullptr;   // [batch, blocks_of_example]: their sums, where there are several
  unsigned* tickets = nullptr;  // [batch]: how many of them have
};

// `gates` are operands whose rows are four times as long as all others.
ExampleGrid example_grid(const ModelCall& call, std::initializer_list<Strided> operands,
                         std::initializer_list<Strided> gates, bool leaves_sums, const Place& place);

// Of a workspace, beside the tickets.
std::int64_t most_partials_of_examples(std::int64_t multiprocessors);

// Raises what a launch has gone wrong with.
void check_model_launch(const char* kernel, const ModelCall& call, const ExampleGrid& grid);

}  // namespace geco::cuda

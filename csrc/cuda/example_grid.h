// How the threads of a model kernel share its numbers, as the host decides.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "cuda/models.h"

namespace geco::cuda {

// A group of threads walks over an example, vector by vector: as many groups to a block as fit, or, for a large
// example, several blocks to a group. All operands have the same example, row and column at a step.
struct Walk {
  std::int64_t batch, vectors;  // of an example
  std::int64_t row_vectors;     // of a row; rows that follow one another in all operands are one
  std::int64_t row_numbers;     // of a row of the cell: how far apart its gates are
  int width;                    // numbers of a vector: 16 bytes, or one number
  int group;                    // threads of a block for an example, a power of two
  int shares;                   // blocks of an example
  int blocks;
  double* partials = nullptr;   // [batch, shares]: what blocks have found, where there are several for an example
  unsigned* tickets = nullptr;  // [batch]: how many of them have
};

// `gates` are operands whose rows are four times as long as all others.
Walk walk_of(const ModelCall& call, std::initializer_list<Strided> operands, std::initializer_list<Strided> gates,
             bool leaves_sums, const Place& place);

// Of a workspace, beside the tickets.
std::int64_t most_numbers_of_walk(std::int64_t multiprocessors);

// Raises what a launch has gone wrong with.
void check_model_launch(const char* kernel, const ModelCall& call, const Walk& walk);

}  // namespace geco::cuda

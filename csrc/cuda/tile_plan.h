// How the elements of a squared error are cut up: in vectors, or in tiles of single elements.
#pragma once

#include "cuda/plan.h"

namespace geco::cuda {

// Decides between the two. Dimensions, types and addresses are known.
void plan_elements(const Input& input, Item& item);

// A thread takes `wanted` vectors or elements in one round, or as many as it can.
void plan_round(Item& item, std::int64_t wanted);

// Rounds of a block that a channel is.
std::int64_t rounds_of(const Item& item);

}  // namespace geco::cuda

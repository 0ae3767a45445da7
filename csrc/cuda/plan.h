// The tables a kernel takes as its parameters: which blocks do what, and how their sums become constraints.
#pragma once

#include <cstdint>

#include "call.h"
#include "cuda/lagrangian.h"
#include "lines.h"

namespace geco::cuda {

enum class Work : std::int8_t { kSquaredError, kClassProbability, kMean };

// One input, or kl: its channels one after the other, each shared by `blocks` blocks.
struct Item {
  const void* prediction;
  const void* target;
  void* gradient;  // null: not wanted

  // Squared error: the elements of a channel in memory order, as lines along the innermost dimension.
  // Class probability: `outer[0]` is the batch, `inner` the classes. Mean: `inner` alone.
  Dimension channel;
  Dimension outer[kMaxDimensions - 1];
  Dimension inner;
  std::int64_t elements;             // of a channel; examples for a class probability
  std::int64_t vectorised_elements;  // the first ones, in whole vectors, every line starting at a multiple of 16 bytes

  double divisor;  // of the sum: the number of examples or, for a mean, of values
  int first_block, blocks, channels;
  int first_sum;  // channels follow one another
  int vectors;    // of a thread in one round
  std::int8_t outer_dimensions;
  Work work;
  std::int8_t prediction_type, target_type;
  bool stream;  // the gradient is larger than the caches
  bool from_logits;

  GECO_HD DataType type_of_prediction() const { return static_cast<DataType>(prediction_type); }
  GECO_HD DataType type_of_target() const { return static_cast<DataType>(target_type); }
};

// A term reads an item: its rows grow by weight * sum / divisor.
struct Reading {
  int item;
  double weight;
};

struct PlannedTerm {
  TermKind kind;
  ScaleRule scale;
  int first_row, rows;
  int first_reading, readings;
  double elements;  // D of lambda* = D / (2 s)
};

enum class Outcome : int { kEvaluation, kTraining, kSums };

constexpr int kMaxItems = kMaxInputs + 1;             // and kl
constexpr int kMaxReadings = kMaxInputs + kMaxTerms;  // terms share one input at most, the image

struct Plan {
  Item items[kMaxItems];
  PlannedTerm terms[kMaxTerms];
  Reading readings[kMaxReadings];
  MultiplierUpdate update;
  State state;
  std::int64_t batch;
  double* partials;  // one sum for each block
  double* sums_out;  // kSums: where the L + 1 sums go
  void* loss;
  Outcome outcome;
  int item_count, term_count, reading_count;
  int kl_item;  // -1: none
  int blocks;
  int sums;  // over all channels of all items
  bool loss_is_double;
};

static_assert(sizeof(Plan) <= 4096, "kernel parameters beyond 4 KiB need newer drivers and cost more to launch");

struct DeviceSize {
  int multiprocessors;
  int l2_bytes;
};

// Throws std::invalid_argument for a call beyond the limits.
Plan plan_of(const Call& call, Outcome outcome, const DeviceSize& device);

// The part of a plan that needs no blocks: terms, state and kl.
Plan plan_of_update(const Call& call, const DeviceSize& device);

// At most this many partial sums, and so blocks, beside one for each channel.
std::int64_t most_blocks(const DeviceSize& device);

}  // namespace geco::cuda

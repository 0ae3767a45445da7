// The tables a kernel takes as its parameters: which blocks do what, and how their sums become constraints.
#pragma once

#include <cstdint>

#include "contract.h"
#include "cuda/step.h"
#include "cuda/window_kernels.h"

namespace geco::cuda {

enum class Work : std::int8_t { kSquaredError, kClassProbability, kMean, kWindows };

// One input, or kl: its channels one after the other, each shared by `blocks` blocks.
struct Item {
  const void* prediction;
  const void* target;
  void* gradient;  // null: not wanted

  // Squared error: the elements of a channel in memory order, as lines along the innermost dimension.
  // Class probability: `outer[0]` is the batch, `inner` the classes. Mean: `inner` alone.
  // Windows: `outer` are batch and rows, `inner` the columns; strides are in bytes.
  Dimension channel;
  Dimension outer[kMaxDimensions - 1];
  Dimension inner;
  std::int64_t elements;             // of a channel; examples for a class probability
  std::int64_t vectorised_elements;  // in whole vectors, as many of each line, from `head` on

  double divisor;  // of the sum: the number of examples or, for a mean, of values
  int first_block, blocks, channels;
  int first_sum;      // channels follow one another
  int first_partial;  // so do their partial sums, `blocks` for each sum
  std::uint16_t box;  // squared error without vectors, see tiles.h
  std::uint8_t unrolled : 4, unroll_bits : 4;
  std::int8_t vectors;  // of a thread in one round
  std::int8_t head;     // elements of a line before its first vector
  std::int8_t outer_dimensions;
  Work work;
  std::int8_t prediction_type, target_type;
  bool stream;  // the gradient is larger than the caches
  bool from_logits, log_gradient;

  GECO_HD DataType type_of_prediction() const { return static_cast<DataType>(prediction_type); }
  GECO_HD DataType type_of_target() const { return static_cast<DataType>(target_type); }
};

// A term reads an item: its rows grow by weight * sum / divisor.
struct Reading {
  int item;
  double weight;
};

struct PlannedTerm {
  double elements;  // D of lambda* = D / (2 s)
  std::int16_t first_row, rows;
  std::int8_t first_reading, readings;
  std::int8_t kind_of_term, rule_of_scale;

  GECO_HD TermKind kind() const { return static_cast<TermKind>(kind_of_term); }
  GECO_HD ScaleRule scale() const { return static_cast<ScaleRule>(rule_of_scale); }
};

// A windowed term. Neighbouring ones with the same patches share their statistics.
struct Window {
  double eps;
  int stride;
  std::int16_t size;
  std::int8_t term;
  bool per_channel : 1, shares_statistics : 1;  // with the window before it
};

// How the images are cut into columns of strips, each marched down by one warp (window_march.cuh), and what a block
// keeps. Columns of strips lie end to end in a line of rows, and a warp takes so many rows of the line at a time.
struct Strips {
  WindowKernel kernel;
  std::int64_t length;  // of the line, in rows
  int lanes, beside;    // of a warp that see an image, and how many images lie side by side in a warp
  int step;             // columns from one strip to the next
  int halo;             // columns of a strip, but the first, before those it owns
  int across;           // columns of strips in an image
  int line;             // rows of a column of strips in the line: those of the image, or a few more
  int rows;             // of the line, that a warp takes
  int warps;            // of a block, that take strips
  int ring_rows;        // of a warp, of all its windows
  int ring_lanes;       // lanes that rings have room for
  int sums;             // of a block: one for each window, then those of squared errors
  int shared_at;        // bytes of shared memory before those of the windows
};

enum class Outcome : int { kEvaluation, kTraining, kSums };

constexpr int kMaxItems = kMaxInputs + 1;  // and kl
// Terms share one input at most, the image: it has a reading for each of its terms, every other input has one, and
// where there are others, one term at least does not read the image.
constexpr int kMaxReadings = kMaxInputs + kMaxTerms - 2;

struct Plan {
  Item items[kMaxItems];  // the first one with windows, if any has: kernels then find it at a constant address
  PlannedTerm terms[kMaxTerms];
  Reading readings[kMaxReadings];
  Window windows[kMaxTerms];
  Strips strips;
  MultiplierUpdate update;
  State state;
  std::int64_t batch;
  double* partials;  // one sum for each block
  unsigned* ticket;  // counts the blocks that have left theirs (workspace.h)
  double* sums_out;  // kSums: where the L + 1 sums go
  void* loss;
  Outcome outcome;
  int item_count, term_count, reading_count, window_count;
  int kl_item;  // -1: none
  int blocks;
  int sums;  // over all channels of all items
  bool loss_is_double;
};

constexpr int kSharedHead = 128;  // bytes of shared memory, at most, before those that depend on the plan

struct DeviceSize {
  int multiprocessors;
  int l2_bytes;
  int shared_bytes, shared_bytes_of_block;  // of a multiprocessor, and the most that a block may ask for
};

// Throws std::invalid_argument for a call beyond the limits.
Plan plan_of(const Call& call, Outcome outcome, const DeviceSize& device);

// The part of a plan that needs no blocks: terms, state and kl.
Plan plan_of_update(const Call& call, const DeviceSize& device);

// A call needs at most this many partial sums beside one for each of its rows.
std::int64_t most_partials(const DeviceSize& device);

}  // namespace geco::cuda

// The tables a kernel takes as its parameters: which blocks do what, and how their sums become constraints.
#pragma once

#include <cstdint>

#include "contract.h"
#include "cuda/step.h"
#include "cuda/window_kernels.h"

namespace geco::cuda {

enum class Operation : std::int8_t { kElementwise, kMean, kWindows };

// What is reduced: one input of the call, or kl. Its channels follow one another, each shared by `blocks` blocks.
struct Operand {
  const void* prediction;
  const void* target;
  void* gradient;  // null: not wanted

  // Elementwise: the loops over the elements of a channel in memory order (contract.h, LoopNest).
  // Mean: `inner` alone.
  // Windows: `outer` are batch and rows, `inner` the columns; strides are in bytes.
  Dimension channel;
  Dimension outer[kMaxDimensions - 1];
  Dimension inner;
  std::int64_t elements;             // of a channel
  std::int64_t vectorised_elements;  // in whole vectors, as many of each inner loop, from `head` on

  int first_block, blocks, channels;
  int first_sum;      // channels follow one another, the measures of each
  int first_partial;  // so do their partial sums, `blocks` for each sum
  std::uint16_t box;  // elementwise without vectors, see tiles.h
  std::uint8_t unrolled : 4, unroll_bits : 4;
  std::int8_t vectors;  // of a thread in one round
  std::int8_t head;     // elements of an inner loop before its first vector
  std::int8_t outer_dimensions;
  Operation operation;
  std::int8_t prediction_type, target_type;
  std::int8_t first_measure, measures;  // of the plan; a mean counts as one
  bool stream;                          // the gradient is larger than the caches

  GECO_HD DataType type_of_prediction() const { return static_cast<DataType>(prediction_type); }
  GECO_HD DataType type_of_target() const { return static_cast<DataType>(target_type); }
};

// Of an operand with weights: where they lie, with strides for its channel and its loops. They have the type that is
// computed in.
struct Weights {
  const void* data;
  std::int64_t channel, outer[kMaxDimensions - 1], inner;
};

// An operand that a constraint reads: its rows are sums of weight * sum / divisor.
struct WeightedInput {
  std::int16_t operand, measure;  // which of the operand's
  double weight;
};

struct PlannedMeasure {
  double eps;
  std::int8_t kind_number;

  GECO_HD ConstraintKind kind() const { return static_cast<ConstraintKind>(kind_number); }
};

struct PlannedConstraint {
  double elements;  // D of lambda* = D / (2 s)
  std::int16_t first_row, rows;
  std::int8_t first_input, inputs;
  std::int8_t kind_number, scale_rule_number;

  GECO_HD ConstraintKind kind() const { return static_cast<ConstraintKind>(kind_number); }
  GECO_HD ScaleRule scale() const { return static_cast<ScaleRule>(scale_rule_number); }
};

// A windowed constraint. Neighbouring ones with the same patches share their statistics.
struct Window {
  double eps;
  int stride;
  std::int16_t size;
  std::int8_t constraint;
  bool per_channel : 1, shares_statistics : 1;  // with the window before it
};

// How the images are cut into columns of strips, each marched down by one warp (window_march.cuh), and what a block
// keeps. The images lie end to end in a line of rows, for each of their columns of strips, and a warp takes so many
// rows of one line at a time. All lines are cut at the same rows: warps that follow one another take neighbouring
// columns and load what these part, and what lies next to each other in memory, at the same time.
struct Strips {
  WindowKernel kernel;
  std::int64_t length;  // of a line, in rows
  int lanes, beside;    // of a warp that see an image, and how many images lie side by side in a warp
  int step;             // columns from one strip to the next
  int halo;             // columns of a strip, but the first, before those it owns
  int across;           // columns of strips in an image
  int line;             // rows of an image in a line: those it has, or a few more
  int rows;             // of a line, that a warp takes
  int warps;            // of a block, that take strips
  int ring_numbers;     // that a lane keeps of rows, of all its windows
  int ring_lanes;       // lanes that rings have room for
  int sums;             // of a block: one for each window, then `of_measure` for each measure
  int of_measure;       // one, or one for each channel
  int shared_at;        // bytes of shared memory before those of the windows
};

// What all that is elementwise measures: squared differences, the measure of another kind, or several measures.
enum class MeasureSet : std::int8_t { kSquaredAlone, kAnotherAlone, kAny };

enum class Outcome : int { kEvaluation, kTraining, kSums };

constexpr int kMaxOperands = kMaxInputs + 1;  // and kl
constexpr int kMaxWeights = 4;                // operands that have weights: the first ones
// Constraints share one input at most, the image: it counts once for each of its constraints, every other input once,
// and where there are others, one constraint at least does not read the image.
constexpr int kMaxWeightedInputs = kMaxInputs + kMaxConstraints - 2;

struct Plan {
  Operand operands[kMaxOperands];  // the first one with windows, if any has: kernels then find it at a constant address
  PlannedConstraint constraints[kMaxConstraints];
  WeightedInput weighted_inputs[kMaxWeightedInputs];
  PlannedMeasure measures[kMaxMeasures + 1];  // those of the images, and squared differences, which others share
  union {                                     // windows know no weights
    Window windows[kMaxConstraints];
    Weights weights[kMaxWeights];
  };
  Strips strips;
  MultiplierUpdate update;
  State state;
  std::int64_t batch;
  double* partials;  // one sum for each block
  unsigned* ticket;  // counts the blocks that have left theirs (workspace.h)
  double* sums_out;  // kSums: where the L + 1 sums go
  void* loss;
  Outcome outcome;
  int operand_count, constraint_count, weighted_input_count, measure_count, window_count;
  int kl_operand;  // -1: none
  int blocks;
  int sums;  // over all channels of all operands
  bool loss_is_double;
  MeasureSet measure_set;
  bool weighted;  // all that is elementwise
};

// Of an operand's sums: the number of examples or, for a mean, of values.
GECO_HD double divisor_of(const Plan& plan, const Operand& operand) {
  return static_cast<double>(operand.operation == Operation::kMean ? operand.elements : plan.batch);
}

constexpr int kSharedHead = 128;  // bytes of shared memory, at most, before those that depend on the plan

struct DeviceSize {
  int multiprocessors;
  int l2_bytes;
  int shared_bytes, shared_bytes_of_block;  // of a multiprocessor, and the most that a block may ask for
};

// Throws std::invalid_argument for a call beyond the limits.
Plan plan_of(const LossCall& call, Outcome outcome, const DeviceSize& device);

// The part of a plan that needs no blocks: constraints, state and kl.
Plan plan_of_update(const LossCall& call, const DeviceSize& device);

// A call needs at most this many partial sums beside one for each of its rows.
std::int64_t most_partials(const DeviceSize& device);

}  // namespace geco::cuda

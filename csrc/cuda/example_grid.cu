#include <algorithm>
#include <string>

#include "cuda/device.h"
#include "cuda/example_grid.h"
#include "cuda/threads.h"
#include "cuda/workspace.h"

namespace geco::cuda {
namespace {

constexpr std::int64_t kLargeExample = 8 * kThreads;  // vectors
constexpr std::int64_t kVectorsOfShare = 4;           // of a thread, at least
// Blocks of a multiprocessor. From the first number on, examples that leave sums have one block each.
constexpr std::int64_t kEnoughBlocks = 4;
constexpr std::int64_t kBlocksOfShares = 8;
constexpr std::int64_t kMostBlocks = 32;

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

bool vectors_fit(const Strided& operand, int size, int width) {
  return reinterpret_cast<std::uintptr_t>(operand.data) % static_cast<std::uintptr_t>(size * width) == 0 &&
         operand.batch_stride % width == 0 && operand.row_stride % width == 0;
}

// Each of them has a ticket.
std::int64_t most_examples_with_shares(std::int64_t multiprocessors) {
  return std::min(kEnoughBlocks * multiprocessors, kTickets);
}

// Where several blocks leave sums of an example.
std::int64_t shares_with_sums(const Walk& walk, std::int64_t multiprocessors) {
  if (walk.vectors < kLargeExample || walk.batch >= most_examples_with_shares(multiprocessors)) return 1;
  return std::min(ceil_div(walk.vectors, kVectorsOfShare * kThreads),
                  ceil_div(kBlocksOfShares * multiprocessors, walk.batch));
}

}  // namespace

Walk walk_of(const ModelCall& call, std::initializer_list<Strided> operands, std::initializer_list<Strided> gates,
             bool leaves_sums, const Place& place) {
  const Extent& extent = call.extent;
  const std::int64_t numbers = extent.rows * extent.inner;
  const int size = size_of(call.type), widest = 16 / size;
  bool one_row = extent.rows == 1 || gates.size() == 0, aligned = true;
  for (const Strided& operand : operands) {
    if (!operand) continue;
    one_row = one_row && (extent.rows == 1 || operand.row_stride == extent.inner);
    aligned = aligned && vectors_fit(operand, size, widest);
  }
  for (const Strided& operand : gates) aligned = aligned && vectors_fit(operand, size, widest);
  const std::int64_t row = one_row ? numbers : extent.inner;

  Walk walk{};
  walk.width = aligned && extent.inner % widest == 0 ? widest : 1;
  walk.batch = extent.batch;
  walk.vectors = numbers / walk.width;
  walk.row_vectors = row / walk.width;
  walk.row_numbers = row;
  walk.group = 1;
  while (walk.group < walk.vectors && walk.group < kThreads) walk.group *= 2;

  const std::int64_t processors = multiprocessors(place.device);
  const std::int64_t blocks = ceil_div(walk.batch, kThreads / walk.group);
  if (leaves_sums) {
    walk.shares = static_cast<int>(shares_with_sums(walk, processors));
  } else {
    const std::int64_t most = std::max<std::int64_t>(kMostBlocks * processors / std::max<std::int64_t>(blocks, 1), 1);
    walk.shares = static_cast<int>(std::clamp<std::int64_t>(ceil_div(walk.vectors, walk.group), 1, most));
  }
  walk.blocks = static_cast<int>(blocks) * walk.shares;
  if (leaves_sums && walk.shares > 1) {
    double* const workspace = place.workspace();
    walk.partials = numbers_of(workspace);
    walk.tickets = tickets_of(workspace);
  }
  return walk;
}

std::int64_t most_numbers_of_walk(std::int64_t multiprocessors) {
  return kBlocksOfShares * multiprocessors + most_examples_with_shares(multiprocessors);
}

void check_model_launch(const char* kernel, const ModelCall& call, const Walk& walk) {
  const cudaError_t status = cudaGetLastError();
  if (status == cudaSuccess) return;
  const auto text = [](std::int64_t number) { return std::to_string(number); };
  const std::string what = "CUDA kernel " + std::string(kernel) + " on " + text(call.extent.batch) + " examples of " +
                           text(call.extent.rows * call.extent.inner) + " numbers (" + text(walk.blocks) +
                           " blocks of " + text(kThreads) + " threads)";
  check(status, what.c_str());
}

}  // namespace geco::cuda

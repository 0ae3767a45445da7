#include <algorithm>
#include <string>

#include "cuda/device.h"
#include "cuda/example_grid.h"
#include "cuda/threads.h"
#include "cuda/workspace.h"

namespace geco::cuda {
namespace {

constexpr std::int64_t kLargeExample = 8 * kThreads;  // vectors
constexpr std::int64_t kVectorsOfBlock = 4;           // of a thread, at least
// Blocks of a multiprocessor. From the first number on, examples that leave sums have one block each.
constexpr std::int64_t kEnoughBlocks = 4;
constexpr std::int64_t kBlocksWithSums = 8;
constexpr std::int64_t kMostBlocks = 32;

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

bool vectors_fit(const Strided& operand, int size, int width) {
  return reinterpret_cast<std::uintptr_t>(operand.data) % static_cast<std::uintptr_t>(size * width) == 0 &&
         operand.batch_stride % width == 0 && operand.row_stride % width == 0;
}

// Each of them has a ticket.
std::int64_t most_examples_of_several_blocks(std::int64_t multiprocessors) {
  return std::min(kEnoughBlocks * multiprocessors, kTickets);
}

// Where several blocks leave sums of an example.
std::int64_t blocks_with_sums(const ExampleGrid& grid, std::int64_t multiprocessors) {
  if (grid.vectors < kLargeExample || grid.batch >= most_examples_of_several_blocks(multiprocessors)) return 1;
  return std::min(ceil_div(grid.vectors, kVectorsOfBlock * kThreads),
                  ceil_div(kBlocksWithSums * multiprocessors, grid.batch));
}

}  // namespace

ExampleGrid example_grid(const ModelCall& call, std::initializer_list<Strided> operands,
                         std::initializer_list<Strided> gates, bool leaves_sums, const Place& place) {
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

  ExampleGrid grid{};
  grid.width = aligned && extent.inner % widest == 0 ? widest : 1;
  grid.batch = extent.batch;
  grid.vectors = numbers / grid.width;
  grid.row_vectors = row / grid.width;
  grid.row_numbers = row;
  grid.group = 1;
  while (grid.group < grid.vectors && grid.group < kThreads) grid.group *= 2;

  const std::int64_t processors = multiprocessors(place.device);
  const std::int64_t blocks = ceil_div(grid.batch, kThreads / grid.group);
  if (leaves_sums) {
    grid.blocks_of_example = static_cast<int>(blocks_with_sums(grid, processors));
  } else {
    const std::int64_t most = std::max<std::int64_t>(kMostBlocks * processors / std::max<std::int64_t>(blocks, 1), 1);
    grid.blocks_of_example = static_cast<int>(std::clamp<std::int64_t>(ceil_div(grid.vectors, grid.group), 1, most));
  }
  grid.blocks = static_cast<int>(blocks) * grid.blocks_of_example;
  if (leaves_sums && grid.blocks_of_example > 1) {
    double* const workspace = place.workspace();
    grid.partials = numbers_of(workspace);
    grid.tickets = tickets_of(workspace);
  }
  return grid;
}

std::int64_t most_partials_of_examples(std::int64_t multiprocessors) {
  return kBlocksWithSums * multiprocessors + most_examples_of_several_blocks(multiprocessors);
}

void check_model_launch(const char* kernel, const ModelCall& call, const ExampleGrid& grid) {
  const cudaError_t status = cudaGetLastError();
  if (status == cudaSuccess) return;
  const auto text = [](std::int64_t number) { return std::to_string(number); };
  const std::string what = "CUDA kernel " + std::string(kernel) + " on " + text(call.extent.batch) + " examples of " +
                           text(call.extent.rows * call.extent.inner) + " numbers (" + text(grid.blocks) +
                           " blocks of " + text(kThreads) + " threads)";
  check(status, what.c_str());
}

}  // namespace geco::cuda

// What all model kernels do: go over the vectors of examples, and add up over an example in a fixed order.
#pragma once

#include "cuda/example_grid.h"
#include "cuda/launch.h"
#include "cuda/memory.h"
#include "cuda/reduce.h"

namespace geco::cuda {

// The type of the numbers of a call, and how many a thread reads at once.
template <class T, int n>
struct Numbers {
  using Stored = T;
  using Compute = typename ComputeOf<T>::type;
  static constexpr int kWidth = n;
  using Vector = cuda::Vector<Compute, n>;
};

// Calls `launch` with the numbers of a call.
template <class Launch>
void with_numbers(DataType type, int width, Launch launch) {
  const bool wide = width > 1;
  switch (type) {
    case DataType::kFloat64: return wide ? launch(Numbers<double, 2>{}) : launch(Numbers<double, 1>{});
    case DataType::kFloat16: return wide ? launch(Numbers<Half, 8>{}) : launch(Numbers<Half, 1>{});
    case DataType::kBFloat16: return wide ? launch(Numbers<BFloat16, 8>{}) : launch(Numbers<BFloat16, 1>{});
    default: return wide ? launch(Numbers<float, 4>{}) : launch(Numbers<float, 1>{});
  }
}

struct Position {
  std::int64_t example, row, column;
};

__device__ __forceinline__ std::int64_t offset_of(const Strided& operand, const Position& at) {
  return at.example * operand.batch_stride + (at.row * operand.row_stride + at.column);
}

template <class N>
__device__ __forceinline__ typename N::Vector read(const Strided& operand, const Position& at) {
  using T = typename N::Stored;
  const auto stored = load<T, N::kWidth>(static_cast<const T*>(operand.data) + offset_of(operand, at));
  typename N::Vector vector;
#pragma unroll
  for (int e = 0; e < N::kWidth; ++e) vector.values[e] = widen(stored.values[e]);
  return vector;
}

// Zeros where there is none.
template <class N>
__device__ __forceinline__ typename N::Vector read_if_any(const Strided& operand, const Position& at) {
  if (operand.data) return read<N>(operand, at);
  return typename N::Vector{};
}

template <class N>
__device__ __forceinline__ void write(const Strided& operand, const Position& at, const typename N::Vector& vector) {
  using T = typename N::Stored;
  Vector<T, N::kWidth> stored;
#pragma unroll
  for (int e = 0; e < N::kWidth; ++e) {
    if constexpr (sizeof(T) == 2) {
      stored.values[e] = round_to<T>(vector.values[e]);
    } else {
      stored.values[e] = vector.values[e];
    }
  }
  store(static_cast<T*>(operand.data) + offset_of(operand, at), stored, false);
}

// One of the four parts of a row.
template <class N>
__device__ __forceinline__ Strided gate(const Strided& gates, const ExampleGrid& grid, int k) {
  auto* first = static_cast<typename N::Stored*>(gates.data);
  return {first + k * grid.row_numbers, gates.batch_stride, gates.row_stride};
}

// The example of a thread; beyond the last one, none.
__device__ __forceinline__ std::int64_t example_of(const ExampleGrid& grid) {
  const std::int64_t first = blockIdx.x / static_cast<unsigned>(grid.blocks_of_example);
  return first * (kThreads / grid.group) + threadIdx.x / static_cast<unsigned>(grid.group);
}

__device__ __forceinline__ int block_of_example(const ExampleGrid& grid) {
  return static_cast<int>(blockIdx.x % static_cast<unsigned>(grid.blocks_of_example));
}

// A gradient that each example has one of, zero where there is none.
template <class Compute>
__device__ __forceinline__ Compute number_of_example(const PerExample& gradients, std::int64_t example,
                                                     const ExampleGrid& grid) {
  if (!gradients.data || example >= grid.batch) return 0;
  return element<Compute>(gradients.data, example * gradients.stride);
}

// Calls `visit` with the position of each vector of this thread.
template <class N, class Visit>
__device__ __forceinline__ void for_each_vector(const ExampleGrid& grid, std::int64_t example, Visit visit) {
  if (example >= grid.batch) return;
  const std::int64_t step = static_cast<std::int64_t>(grid.blocks_of_example) * grid.group;
  const std::int64_t first = static_cast<std::int64_t>(block_of_example(grid)) * grid.group +
                             static_cast<int>(threadIdx.x % static_cast<unsigned>(grid.group));
  const bool one_row = grid.row_vectors == grid.vectors, narrow = grid.vectors <= 0xffffffff;
  for (std::int64_t v = first; v < grid.vectors; v += step) {
    std::int64_t row = 0;
    if (!one_row) {  // 32 bits divide much faster
      row = narrow ? static_cast<unsigned>(v) / static_cast<unsigned>(grid.row_vectors) : v / grid.row_vectors;
    }
    visit(Position{example, row, (v - row * grid.row_vectors) * N::kWidth});
  }
}

struct SharedSums {
  double of_warps[kWarps];
  unsigned is_last;
};

// Writes the sum over an example of what its threads have found. All threads of a block come here.
template <class Compute>
__device__ __forceinline__ void write_sum(double value, const PerExample& sums, const ExampleGrid& grid,
                                          std::int64_t example, SharedSums& shared) {
  double total = group_sum(value, grid.group, shared.of_warps);
  if (grid.blocks_of_example > 1) {  // one example to a block
    double* partials = grid.partials + example * grid.blocks_of_example;
    if (threadIdx.x == 0) partials[block_of_example(grid)] = total;
    if (!is_last_block(grid.tickets + example, static_cast<unsigned>(grid.blocks_of_example), shared.is_last)) return;
    double of_blocks = 0;
    for (int block = static_cast<int>(threadIdx.x); block < grid.blocks_of_example; block += kThreads) {
      of_blocks += __ldcg(partials + block);
    }
    total = group_sum(of_blocks, grid.group, shared.of_warps);
  }
  if (threadIdx.x % static_cast<unsigned>(grid.group) == 0 && example < grid.batch) {
    GECO_STORED(sizeof(Compute));
    static_cast<Compute*>(sums.data)[example * sums.stride] = static_cast<Compute>(total);
  }
}

}  // namespace geco::cuda

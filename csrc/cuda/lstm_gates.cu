#include "cuda/device.h"
#include "cuda/device_math.cuh"
#include "cuda/example_grid.cuh"
#include "cuda/models.h"
#include "math/lstm.h"

namespace geco::cuda {
namespace {

template <class N>
__device__ __forceinline__ Gates<typename N::Vector> read_gates(const Strided& gates, const ExampleGrid& grid,
                                                                const Position& at) {
  return {read<N>(gate<N>(gates, grid, 0), at), read<N>(gate<N>(gates, grid, 1), at),
          read<N>(gate<N>(gates, grid, 2), at), read<N>(gate<N>(gates, grid, 3), at)};
}

template <class N>
__device__ __forceinline__ Gates<typename N::Compute> gates_of(const Gates<typename N::Vector>& gates, int e) {
  return {gates.input.values[e], gates.forget.values[e], gates.candidate.values[e], gates.output.values[e]};
}

template <class N>
__global__ void __launch_bounds__(kThreads)
    lstm_gates_kernel(const __grid_constant__ GatesCall call, const __grid_constant__ ExampleGrid grid) {
  for_each_vector<N>(grid, example_of(grid), [&](const Position& at) {
    const auto gates = read_gates<N>(call.gates, grid, at);
    const typename N::Vector cell = read<N>(call.cell, at);
    typename N::Vector hidden, new_cell;
#pragma unroll
    for (int e = 0; e < N::kWidth; ++e) {
      const auto next = geco::lstm_gates<DeviceMath<typename N::Compute>>(gates_of<N>(gates, e), cell.values[e]);
      hidden.values[e] = next.hidden;
      new_cell.values[e] = next.cell;
    }
    write<N>(call.hidden, at, hidden);
    write<N>(call.new_cell, at, new_cell);
  });
}

template <class N>
__global__ void __launch_bounds__(kThreads) lstm_gates_backward_kernel(const __grid_constant__ GatesBackwardCall call,
                                                                       const __grid_constant__ ExampleGrid grid) {
  for_each_vector<N>(grid, example_of(grid), [&](const Position& at) {
    const auto gates = read_gates<N>(call.gates, grid, at);
    const typename N::Vector cell = read<N>(call.cell, at);
    const auto of_hidden = read_if_any<N>(call.grad_hidden, at), of_new_cell = read_if_any<N>(call.grad_cell, at);
    Gates<typename N::Vector> by_gates;
    typename N::Vector by_cell;
#pragma unroll
    for (int e = 0; e < N::kWidth; ++e) {
      const auto by = lstm_gradients<DeviceMath<typename N::Compute>>(of_hidden.values[e], of_new_cell.values[e],
                                                                      gates_of<N>(gates, e), cell.values[e]);
      by_gates.input.values[e] = by.gates.input;
      by_gates.forget.values[e] = by.gates.forget;
      by_gates.candidate.values[e] = by.gates.candidate;
      by_gates.output.values[e] = by.gates.output;
      by_cell.values[e] = by.cell;
    }
    write<N>(gate<N>(call.of_gates, grid, 0), at, by_gates.input);
    write<N>(gate<N>(call.of_gates, grid, 1), at, by_gates.forget);
    write<N>(gate<N>(call.of_gates, grid, 2), at, by_gates.candidate);
    write<N>(gate<N>(call.of_gates, grid, 3), at, by_gates.output);
    write<N>(call.of_cell, at, by_cell);
  });
}

}  // namespace

void compute(const GatesCall& call, const Place& place) {
  if (call.extent.batch == 0) return;
  const DeviceGuard guard(place.device);
  const ExampleGrid grid = example_grid(call, {call.cell, call.hidden, call.new_cell}, {call.gates}, false, place);
  with_numbers(call.type, grid.width, [&](auto numbers) {
    const auto kernel = lstm_gates_kernel<decltype(numbers)>;
    GECO_LAUNCH(kernel, static_cast<unsigned>(grid.blocks), std::size_t{0}, place.stream, call, grid);
  });
  check_model_launch("lstm_gates", call, grid);
}

void compute(const GatesBackwardCall& call, const Place& place) {
  if (call.extent.batch == 0) return;
  const DeviceGuard guard(place.device);
  const auto operands = {call.grad_hidden, call.grad_cell, call.cell, call.of_cell};
  const ExampleGrid grid = example_grid(call, operands, {call.gates, call.of_gates}, false, place);
  with_numbers(call.type, grid.width, [&](auto numbers) {
    const auto kernel = lstm_gates_backward_kernel<decltype(numbers)>;
    GECO_LAUNCH(kernel, static_cast<unsigned>(grid.blocks), std::size_t{0}, place.stream, call, grid);
  });
  check_model_launch("lstm_gates_backward", call, grid);
}

}  // namespace geco::cuda

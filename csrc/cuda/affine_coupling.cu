#include "cuda/device.h"
#include "cuda/device_math.cuh"
#include "cuda/example_grid.cuh"
#include "cuda/models.h"
#include "math/coupling.h"

namespace geco::cuda {
namespace {

template <class N, bool inverse>
__global__ void __launch_bounds__(kThreads)
    affine_coupling_kernel(const __grid_constant__ CouplingCall call, const __grid_constant__ ExampleGrid grid) {
  GECO_DYNAMIC_SHARED(SharedSums, shared);
  using Compute = typename N::Compute;
  const std::int64_t example = example_of(grid);
  double total = 0;
  for_each_vector<N>(grid, example, [&](const Position& at) {
    const typename N::Vector x = read<N>(call.x, at), log_scale = read<N>(call.log_scale, at);
    const typename N::Vector shift = read<N>(call.shift, at);
    typename N::Vector y;
    Compute log_det = 0;
#pragma unroll
    for (int e = 0; e < N::kWidth; ++e) {
      const auto transformed =
          geco::affine_coupling<inverse, DeviceMath<Compute>>(x.values[e], log_scale.values[e], shift.values[e]);
      y.values[e] = transformed.y;
      log_det += transformed.log_det;
    }
    write<N>(call.y, at, y);
    total += static_cast<double>(log_det);
  });
  write_sum<Compute>(total, call.log_det, grid, example, shared);
}

template <class N, bool inverse>
__global__ void __launch_bounds__(kThreads)
    affine_coupling_backward_kernel(const __grid_constant__ CouplingBackwardCall call,
                                    const __grid_constant__ ExampleGrid grid) {
  using Compute = typename N::Compute;
  const std::int64_t example = example_of(grid);
  const Compute of_log_det = number_of_example<Compute>(call.grad_log_det, example, grid);
  for_each_vector<N>(grid, example, [&](const Position& at) {
    const typename N::Vector value = read<N>(call.value, at), log_scale = read<N>(call.log_scale, at);
    const typename N::Vector of_y = read_if_any<N>(call.grad_y, at);
    typename N::Vector by_x, by_log_scale, by_shift;
#pragma unroll
    for (int e = 0; e < N::kWidth; ++e) {
      const auto by = coupling_gradients<inverse, DeviceMath<Compute>>(of_y.values[e], of_log_det, value.values[e],
                                                                       log_scale.values[e]);
      by_x.values[e] = by.x;
      by_log_scale.values[e] = by.log_scale;
      by_shift.values[e] = -by.x;
    }
    write<N>(call.of_x, at, by_x);
    write<N>(call.of_log_scale, at, by_log_scale);
    if constexpr (inverse) write<N>(call.of_shift, at, by_shift);
  });
}

template <bool inverse>
void launch(const CouplingCall& call, const ExampleGrid& grid, void* stream) {
  with_numbers(call.type, grid.width, [&](auto numbers) {
    const auto kernel = affine_coupling_kernel<decltype(numbers), inverse>;
    GECO_LAUNCH(kernel, static_cast<unsigned>(grid.blocks), sizeof(SharedSums), stream, call, grid);
  });
}

template <bool inverse>
void launch(const CouplingBackwardCall& call, const ExampleGrid& grid, void* stream) {
  with_numbers(call.type, grid.width, [&](auto numbers) {
    const auto kernel = affine_coupling_backward_kernel<decltype(numbers), inverse>;
    GECO_LAUNCH(kernel, static_cast<unsigned>(grid.blocks), std::size_t{0}, stream, call, grid);
  });
}

}  // namespace

void compute(const CouplingCall& call, const Place& place) {
  if (call.extent.batch == 0) return;
  const DeviceGuard guard(place.device);
  const ExampleGrid grid = example_grid(call, {call.x, call.log_scale, call.shift, call.y}, {}, true, place);
  call.inverse ? launch<true>(call, grid, place.stream) : launch<false>(call, grid, place.stream);
  check_model_launch("affine_coupling", call, grid);
}

void compute(const CouplingBackwardCall& call, const Place& place) {
  if (call.extent.batch == 0) return;
  const DeviceGuard guard(place.device);
  const auto operands = {call.grad_y, call.value, call.log_scale, call.of_x, call.of_log_scale, call.of_shift};
  const ExampleGrid grid = example_grid(call, operands, {}, false, place);
  call.inverse ? launch<true>(call, grid, place.stream) : launch<false>(call, grid, place.stream);
  check_model_launch("affine_coupling_backward", call, grid);
}

}  // namespace geco::cuda

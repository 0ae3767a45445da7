#include "cuda/device.h"
#include "cuda/device_math.cuh"
#include "cuda/example_grid.cuh"
#include "cuda/models.h"
#include "math/gaussian.h"

namespace geco::cuda {
namespace {

template <class N, bool has_prior>
struct Compared {
  typename N::Vector mean, log_std, p_mean, p_log_std;

  template <class Call>
  __device__ __forceinline__ Compared(const Call& call, const Position& at)
      : mean(read<N>(call.q_mean, at)), log_std(read<N>(call.q_log_std, at)) {
    if constexpr (has_prior) {
      p_mean = read<N>(call.p_mean, at);
      p_log_std = read<N>(call.p_log_std, at);
    }
  }

  __device__ __forceinline__ auto gap(int e) const {
    using Math = DeviceMath<typename N::Compute>;
    const Gaussian<typename N::Compute> q{mean.values[e], log_std.values[e]};
    if constexpr (has_prior) {
      return gap_from_prior<Math>(q, Gaussian<typename N::Compute>{p_mean.values[e], p_log_std.values[e]});
    } else {
      return gap_from_standard<Math>(q);
    }
  }
};

template <class N, bool has_prior>
__global__ void __launch_bounds__(kThreads)
    gaussian_kernel(const __grid_constant__ GaussianCall call, const __grid_constant__ ExampleGrid grid) {
  GECO_DYNAMIC_SHARED(SharedSums, shared);
  using Compute = typename N::Compute;
  const std::int64_t example = example_of(grid);
  double total = 0;
  for_each_vector<N>(grid, example, [&](const Position& at) {
    const Compared<N, has_prior> compared(call, at);
    const typename N::Vector noise = read<N>(call.noise, at);
    typename N::Vector z;
    Compute kl = 0;
#pragma unroll
    for (int e = 0; e < N::kWidth; ++e) {
      const auto sample =
          gaussian_sample<DeviceMath<Compute>>(compared.mean.values[e], noise.values[e], compared.gap(e));
      z.values[e] = sample.z;
      kl += sample.kl;
    }
    write<N>(call.z, at, z);
    total += static_cast<double>(kl);
  });
  write_sum<Compute>(total, call.kl, grid, example, shared);
}

template <class N, bool has_prior>
__global__ void __launch_bounds__(kThreads) gaussian_backward_kernel(const __grid_constant__ GaussianBackwardCall call,
                                                                     const __grid_constant__ ExampleGrid grid) {
  using Compute = typename N::Compute;
  const std::int64_t example = example_of(grid);
  const Compute of_kl = number_of_example<Compute>(call.grad_kl, example, grid);
  for_each_vector<N>(grid, example, [&](const Position& at) {
    const Compared<N, has_prior> compared(call, at);
    const typename N::Vector noise = read<N>(call.noise, at), of_z = read_if_any<N>(call.grad_z, at);
    typename N::Vector q_mean, q_log_std, p_mean, p_log_std;
#pragma unroll
    for (int e = 0; e < N::kWidth; ++e) {
      const auto by = gaussian_gradients<DeviceMath<Compute>>(of_z.values[e], of_kl, noise.values[e], compared.gap(e));
      q_mean.values[e] = by.q_mean;
      q_log_std.values[e] = by.q_log_std;
      p_mean.values[e] = by.p_mean;
      p_log_std.values[e] = by.p_log_std;
    }
    write<N>(call.of_q_mean, at, q_mean);
    write<N>(call.of_q_log_std, at, q_log_std);
    if constexpr (has_prior) {
      write<N>(call.of_p_mean, at, p_mean);
      write<N>(call.of_p_log_std, at, p_log_std);
    }
  });
}

template <bool has_prior>
void launch(const GaussianCall& call, const ExampleGrid& grid, void* stream) {
  with_numbers(call.type, grid.width, [&](auto numbers) {
    const auto kernel = gaussian_kernel<decltype(numbers), has_prior>;
    GECO_LAUNCH(kernel, static_cast<unsigned>(grid.blocks), sizeof(SharedSums), stream, call, grid);
  });
}

template <bool has_prior>
void launch(const GaussianBackwardCall& call, const ExampleGrid& grid, void* stream) {
  with_numbers(call.type, grid.width, [&](auto numbers) {
    const auto kernel = gaussian_backward_kernel<decltype(numbers), has_prior>;
    GECO_LAUNCH(kernel, static_cast<unsigned>(grid.blocks), std::size_t{0}, stream, call, grid);
  });
}

}  // namespace

void compute(const GaussianCall& call, const Place& place) {
  if (call.extent.batch == 0) return;
  const DeviceGuard guard(place.device);
  const auto operands = {call.q_mean, call.q_log_std, call.p_mean, call.p_log_std, call.noise, call.z};
  const ExampleGrid grid = example_grid(call, operands, {}, true, place);
  call.p_mean ? launch<true>(call, grid, place.stream) : launch<false>(call, grid, place.stream);
  check_model_launch("gaussian_rsample_kl", call, grid);
}

void compute(const GaussianBackwardCall& call, const Place& place) {
  if (call.extent.batch == 0) return;
  const DeviceGuard guard(place.device);
  const auto operands = {call.grad_z, call.q_mean,    call.q_log_std,    call.p_mean,    call.p_log_std,
                         call.noise,  call.of_q_mean, call.of_q_log_std, call.of_p_mean, call.of_p_log_std};
  const ExampleGrid grid = example_grid(call, operands, {}, false, place);
  call.p_mean ? launch<true>(call, grid, place.stream) : launch<false>(call, grid, place.stream);
  check_model_launch("gaussian_rsample_kl_backward", call, grid);
}

}  // namespace geco::cuda

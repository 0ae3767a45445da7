#include <algorithm>
#include <stdexcept>

#include "cuda/block.cuh"
#include "cuda/device.h"
#include "cuda/example_grid.h"
#include "cuda/lagrangian_kernel.cuh"
#include "cuda/last_block.cuh"
#include "cuda/plan.h"
#include "cuda/reduce.h"
#include "cuda/step.h"
#include "cuda/windowed_lagrangian.h"

namespace geco::cuda {
namespace {

// The second half of a step of several processes; one block.
__global__ void __launch_bounds__(kThreads, 1)
    update_kernel(const __grid_constant__ Plan plan, const double* sums, double world_size, double* gradient_factor) {
  GECO_DYNAMIC_SHARED(Shared, shared);
  const int constraints = plan.state.constraints;
  const double examples = sums[constraints];
  const double factor = world_size * static_cast<double>(plan.batch) / examples;
  double kl = 0;
  if (plan.kl_operand >= 0) {
    const Operand& operand = plan.operands[plan.kl_operand];
    for (std::int64_t i = threadIdx.x; i < operand.elements; i += kThreads) {
      kl += read_element<double>(operand.prediction, operand.type_of_prediction(), i * operand.inner.prediction);
    }
    kl = block_sum(kl, shared.of_warps) / divisor_of(plan, operand);  // in thread 0, which writes the loss
  }
  for (int row = static_cast<int>(threadIdx.x); row < constraints; row += kThreads) {
    shared.c_hat(plan)[row] = sums[row] / examples;
  }
  if (threadIdx.x == 0) *gradient_factor = factor;
  __syncthreads();
  update_and_write_loss(plan, shared, kl * factor, true, static_cast<std::int64_t>(examples));
}

DeviceSize size_of_device(int device) {
  return {multiprocessors(device), l2_bytes(device),
          device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, device),
          device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device)};
}

// For messages: the tensor that takes the time.
const Tensor& largest_input(const LossCall& call) {
  const Tensor* largest = &call.kl;
  for (const Input& input : call.inputs) {
    if (!*largest || input.prediction.elements() > largest->elements()) largest = &input.prediction;
  }
  return *largest;
}

void launch_windowed_lagrangian(const Plan& plan, const Place& place) {
  if (plan.strips.kernel.smaller == 4) return launch_windows_of_4_and_8(plan, place);
  switch (plan.strips.kernel.size) {
    case 4: return launch_windows_of_4(plan, place);
    case 8: return launch_windows_of_8(plan, place);
    case 11: return launch_windows_of_11(plan, place);
    case 16: return launch_windows_of_16(plan, place);
    default: return launch_windows_of_any_size(plan, place);
  }
}

void launch_elementwise_lagrangian(const Plan& plan, const Place& place) {
  if (plan.measure_set == MeasureSet::kAny) {
    return plan.weighted ? launch_weighted_measures(plan, place) : launch_any_measures(plan, place);
  }
  if (plan.measure_set == MeasureSet::kAnotherAlone) return launch_one_measure(plan, place);
  if (plan.weighted) return launch_weighted_squares(plan, place);
  launch<SquaredAlone>(plan, place);
}

void launch_lagrangian(const LossCall& call, const Place& place, Outcome outcome, double* sums) {
  const DeviceGuard guard(place.device);
  Plan plan = plan_of(call, outcome, size_of_device(place.device));
  double* const workspace = place.workspace();
  plan.partials = numbers_of(workspace);
  plan.ticket = tickets_of(workspace);
  plan.sums_out = sums;
  if (plan.window_count > 0) {
    launch_windowed_lagrangian(plan, place);
  } else {
    launch_elementwise_lagrangian(plan, place);
  }
  check_launch(plan.window_count > 0 ? "windowed_lagrangian" : "lagrangian", plan.blocks, largest_input(call));
}

}  // namespace

std::int64_t workspace_words(int device) {
  const std::int64_t numbers = most_partials(size_of_device(device)) + kMaxOperands + kMaxRows;
  return kTicketWords + std::max(numbers, most_partials_of_examples(multiprocessors(device)));
}

std::string refuses(const LossCall& call, int device) {
  try {
    plan_of(call, Outcome::kTraining, size_of_device(device));
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

void lagrangian(const LossCall& call, const Place& place) {
  launch_lagrangian(call, place, call.update ? Outcome::kTraining : Outcome::kEvaluation, nullptr);
}

void constraint_sums(const LossCall& call, const Place& place, double* sums) {
  launch_lagrangian(call, place, Outcome::kSums, sums);
}

void update_from_sums(const LossCall& call, const Place& place, const double* sums, int world_size,
                      double* gradient_factor) {
  const DeviceGuard guard(place.device);
  const Plan plan = plan_of_update(call, size_of_device(place.device));
  GECO_LAUNCH(update_kernel, 1u, shared_bytes_of(plan), place.stream, plan, sums, static_cast<double>(world_size),
              gradient_factor);
  check_launch("update", 1, largest_input(call));
}

Capability capability_of(int device) {
  return {device_attribute(cudaDevAttrComputeCapabilityMajor, device),
          device_attribute(cudaDevAttrComputeCapabilityMinor, device)};
}

int driver_version() {
  int version = 0;
  check(cudaDriverGetVersion(&version), "cudaDriverGetVersion");
  return version;
}

bool is_capturing(void* stream) {
  if (stream == nullptr) return false;  // the default stream cannot be captured, and does not like to be asked
  cudaStreamCaptureStatus status;
  check(cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

std::string device_problem(int device) {
  try {
    const DeviceGuard guard(device);
    cudaFuncAttributes attributes;
    check(cudaFuncGetAttributes(&attributes, lagrangian_kernel<SquaredAlone>), "cudaFuncGetAttributes");
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

}  // namespace geco::cuda

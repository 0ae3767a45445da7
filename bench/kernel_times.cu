// Times of the loss kernels by themselves, without Python: two versions of a kernel are compared in seconds.
//
//   nvcc -std=c++17 -O3 -arch=native -rdc=true -Icsrc -o kernel_times bench/kernel_times.cu csrc/contract.cpp \
//        csrc/cuda/{step,scale_gradients,example_grid,linked,windows_of_4,windows_of_8,windows_of_11}.cu \
//        csrc/cuda/{windows_of_16,windows_of_4_and_8,windows_of_any_size}.cu \
//        csrc/cuda/{plan,elementwise_plan,window_plan}.cpp
//   ./kernel_times            # or the names of some cases
//   ncu --set full --kernel-name regex:lagrangian --launch-skip 2 --launch-count 1 ./kernel_times windows
//
// A line for each case: microseconds of a training step's kernel, the fastest, the median and the mean of many launched
// one after the other; the loss and the sum of the gradient's magnitudes, which a faster version has to leave alone.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "contract.h"
#include "cuda/step.h"
#include "cuda/workspace.h"

namespace {

using geco::Constraint;
using geco::ConstraintKind;
using geco::DataType;

constexpr int kThreads = 256, kRepetitions = 30, kInARow = 20;

void check(cudaError_t status) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(status));
  std::exit(1);
}

__device__ float uniform(unsigned long long number) {
  number ^= number >> 33;
  number *= 0xff51afd7ed558ccdULL;
  number ^= number >> 33;
  number *= 0xc4ceb9fe1a85ec53ULL;
  return static_cast<float>(static_cast<unsigned>(number >> 32)) * 0x1p-32f;
}

// An image and its reconstruction, which is off by up to 0.2.
__global__ void fill(void* x, void* x_hat, std::int64_t elements, bool half) {
  for (std::int64_t i = blockIdx.x * kThreads + threadIdx.x; i < elements; i += gridDim.x * kThreads) {
    const float value = uniform(i), noisy = value + 0.2f * (uniform(3 * i + 1) + uniform(5 * i + 2) - 1.0f);
    if (half) {  // bfloat16, cut off
      static_cast<unsigned short*>(x)[i] = static_cast<unsigned short>(__float_as_uint(value) >> 16);
      static_cast<unsigned short*>(x_hat)[i] = static_cast<unsigned short>(__float_as_uint(noisy) >> 16);
    } else {
      static_cast<float*>(x)[i] = value;
      static_cast<float*>(x_hat)[i] = noisy;
    }
  }
}

__global__ void add_magnitudes(const float* values, std::int64_t elements, double* sum) {
  double mine = 0;
  for (std::int64_t i = blockIdx.x * kThreads + threadIdx.x; i < elements; i += gridDim.x * kThreads) {
    mine += fabs(static_cast<double>(values[i]));
  }
  atomicAdd(sum, mine);
}

struct Case {
  std::string name;
  std::int64_t batch, channels, side;
  DataType type;
  std::vector<Constraint> constraints;
};

std::vector<Case> cases() {
  const auto of = [](std::vector<std::pair<ConstraintKind, int>> kinds, bool per_channel = false) {
    std::vector<Constraint> constraints;
    for (const auto& [kind, size] : kinds) {
      Constraint constraint;
      constraint.kind = kind;
      constraint.first_row = static_cast<int>(constraints.size());
      constraint.inputs = {0};
      constraint.patches = {size, 1, 1e-5, per_channel};
      constraints.push_back(constraint);
    }
    return constraints;
  };
  constexpr auto kRe = ConstraintKind::kSquaredError, kNcc = ConstraintKind::kPatchCorrelation,
                 kStatistics = ConstraintKind::kLocalStatistics;
  constexpr DataType kFloat = DataType::kFloat32, kHalf = DataType::kBFloat16;
  const auto all = of({{kRe, 1}, {kNcc, 4}, {kNcc, 8}, {kStatistics, 8}}), windows = of({{kRe, 1}, {kNcc, 8}});
  return {{"re", 64, 1, 1024, kFloat, of({{kRe, 1}})},
          {"re_small", 1, 1, 8, kFloat, of({{kRe, 1}})},
          {"re_half", 128, 1, 1024, kHalf, of({{kRe, 1}})},
          {"windows", 16, 3, 1024, kFloat, windows},
          {"windows_256", 16, 3, 256, kFloat, windows},
          {"windows_64", 64, 3, 64, kFloat, windows},
          {"windows_32", 64, 3, 32, kFloat, windows},
          {"windows_half", 16, 3, 1024, kHalf, windows},
          {"per_channel", 16, 3, 1024, kFloat, of({{kNcc, 11}}, true)},
          {"windows_of_4", 16, 3, 1024, kFloat, of({{kRe, 1}, {kNcc, 4}})},
          {"windows_of_16", 16, 3, 1024, kFloat, of({{kRe, 1}, {kNcc, 16}})},
          {"statistics", 16, 3, 1024, kFloat, of({{kStatistics, 8}})},
          {"all", 16, 3, 1024, kFloat, all},
          {"all_32", 64, 3, 32, kFloat, all}};
}

class Memory {
 public:
  explicit Memory(std::size_t bytes) {
    check(cudaMalloc(&data_, bytes));
    check(cudaMemset(data_, 0, bytes));
  }
  ~Memory() { cudaFree(data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  template <class T = void>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
};

// The state before the first step, every multiplier on its automatic start.
std::vector<double> new_state(const std::vector<Constraint>& constraints) {
  const int count = static_cast<int>(constraints.size());
  std::vector<double> words(static_cast<std::size_t>(static_cast<int>(geco::Row::kCount) * count) +
                            static_cast<std::size_t>(geco::Counter::kCount));
  const geco::State state{words.data(), count};
  for (int l = 0; l < count; ++l) {
    for (geco::Row row : {geco::Row::kLogMultiplier, geco::Row::kLogLow, geco::Row::kLogHigh}) state.at(row, l) = NAN;
    state.at(geco::Row::kKappa, l) = constraints[l].kind == ConstraintKind::kPatchCorrelation ? 0.9 : 0.1;
    state.at(geco::Row::kScale, l) = 0.1;
    state.at(geco::Row::kNaturalMultiplier, l) = 2.5;
  }
  return words;
}

void measure(const Case& of) {
  const std::int64_t elements = of.batch * of.channels * of.side * of.side;
  const std::size_t bytes = static_cast<std::size_t>(elements) * geco::size_of(of.type);
  const std::vector<double> state = new_state(of.constraints);
  const Memory x(bytes), x_hat(bytes), gradient(4 * elements), kl(4 * of.batch), kl_gradient(4 * of.batch), loss(8);
  const Memory block(8 * state.size()), workspace(8 * geco::cuda::workspace_words(0)), sum(8);
  check(cudaMemcpy(block.as(), state.data(), 8 * state.size(), cudaMemcpyHostToDevice));
  fill<<<1024, kThreads>>>(x.as(), x_hat.as(), elements, of.type != DataType::kFloat32);

  const auto tensor = [&](const Memory& memory, DataType type) {
    geco::Tensor result{memory.as(), type, 4, {of.batch, of.channels, of.side, of.side}, {}};
    for (int d = 3, stride = 1; d >= 0; stride *= static_cast<int>(result.sizes[d--])) result.strides[d] = stride;
    return result;
  };
  const auto vector = [&](const Memory& memory) {
    return geco::Tensor{memory.as(), DataType::kFloat32, 1, {of.batch}, {1}};
  };
  const geco::MultiplierUpdate update{0.99, 0.05, 0.5, 1.0, geco::Violation::kLog, 1};
  geco::LossCall call;
  call.constraints = &of.constraints;
  call.inputs = {{tensor(x_hat, of.type), tensor(x, of.type), tensor(gradient, DataType::kFloat32)}};
  call.kl = vector(kl);
  call.kl_gradient = vector(kl_gradient);
  call.state = geco::State{block.as<double>(), static_cast<int>(of.constraints.size())};
  call.batch = of.batch;
  call.image_elements = elements / of.batch;
  call.update = &update;
  call.loss = loss.as();
  const geco::cuda::Place place{0, nullptr, [&] { return workspace.as<double>(); }};

  geco::cuda::lagrangian(call, place);
  add_magnitudes<<<264, kThreads>>>(gradient.as<float>(), elements, sum.as<double>());
  float found_loss = 0;
  double found_sum = 0;
  check(cudaMemcpy(&found_loss, loss.as(), 4, cudaMemcpyDeviceToHost));
  check(cudaMemcpy(&found_sum, sum.as(), 8, cudaMemcpyDeviceToHost));

  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  const auto microseconds = [&](int launches) {
    check(cudaEventRecord(begin));
    for (int i = 0; i < launches; ++i) geco::cuda::lagrangian(call, place);
    check(cudaEventRecord(end));
    check(cudaEventSynchronize(end));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end));
    return 1e3f * milliseconds / static_cast<float>(launches);
  };
  std::vector<float> times;
  for (int r = 0; r < kRepetitions; ++r) times.push_back(microseconds(1));
  std::sort(times.begin(), times.end());
  std::printf("%-14s %9.2f %9.2f %9.2f   loss %.7g, gradient %.9g\n", of.name.c_str(), times[0],
              times[times.size() / 2], microseconds(kInARow), found_loss, found_sum);
  std::fflush(stdout);
}

}  // namespace

int main(int count, char** arguments) {
  const std::vector<std::string> chosen(arguments + 1, arguments + count);
  for (const Case& each : cases()) {
    if (chosen.empty() || std::find(chosen.begin(), chosen.end(), each.name) != chosen.end()) measure(each);
  }
}

// The kernels of models against their formulas in float64, and for the sanitizers: "all", "memory", "h100" with the
// plan of a large device, or "races [kind n]" with the n-th barrier or fence of each thread left out.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "arrays.h"
#include "cuda/example_grid.h"
#include "cuda/models.h"
#include "cuda/threads.h"
#include "cuda/workspace.h"
#include "shim.h"

namespace {

using arrays::Array;
using arrays::Layout;
using geco::DataType;

constexpr DataType kFloats[] = {DataType::kFloat32, DataType::kFloat64, DataType::kFloat16, DataType::kBFloat16};

std::string scenario;
std::mt19937 random_numbers(1);

[[noreturn]] void fail(const std::string& what) {
  std::printf("%s: %s\n", scenario.c_str(), what.c_str());
  std::exit(1);
}

double tolerance(DataType type) {
  switch (type) {
    case DataType::kFloat64: return 1e-13;
    case DataType::kFloat16: return 2e-3;
    case DataType::kBFloat16: return 1.6e-2;
    default: return 2e-6;
  }
}

// The operands of a call: [batch, rows, inner].
struct Shape {
  DataType type;
  std::int64_t batch, rows, inner;
  Layout layout;
  std::int64_t shift = 0;  // of every operand and output, see Array

  Array operand(std::int64_t times = 1, double deviation = 1) const {
    Array array(type, {batch, rows, times * inner}, layout, shift);
    std::normal_distribution<double> normal(0, deviation);
    for (std::int64_t i = 0; i < array.elements(); ++i) array.set(i, normal(random_numbers));
    return array;
  }
  Array logarithms() const { return operand(1, 0.4); }  // a half type holds what is made of them
  Array output(std::int64_t times = 1) const {
    return Array(type, {batch, rows, times * inner}, Layout::kContiguous, shift);
  }
  Array numbers() const { return Array(arrays::gradient_type(type), {batch}).fill(random_numbers); }
  std::int64_t of_example() const { return rows * inner; }
  std::int64_t elements() const { return batch * of_example(); }
};

geco::Strided strided(const Array& array) {
  const geco::Tensor tensor = array.tensor();
  return {tensor.data, tensor.strides[0], tensor.strides[1]};
}

geco::PerExample per_example(const Array& array) { return {array.tensor().data, 1}; }

template <class Call>
Call call_of(const Shape& shape) {
  Call call;
  call.type = shape.type;
  call.extent = {shape.batch, shape.rows, shape.inner};
  return call;
}

void expect(const char* what, const Array& got, std::int64_t i, double expected, double scale, DataType type) {
  const double value = got.get(i);
  if (std::abs(value - expected) <= tolerance(type) * std::max(scale, std::abs(expected))) return;
  fail(std::string(what) + " " + std::to_string(i) + ": got " + std::to_string(value) + ", expected " +
       std::to_string(expected));
}

// One launch; forward reads and writes each number once. All launches follow one another and share a workspace.
template <class Launch>
void launched(Launch launch, const Shape& shape, int reads, int writes) {
  static std::vector<double> workspace(static_cast<std::size_t>(
      geco::cuda::kTicketWords + geco::cuda::most_partials_of_examples(shim::settings.multiprocessors)));
  const geco::cuda::Place place{0, nullptr, [] { return workspace.data(); }};
  const long before = shim::launches;
  shim::loaded_bytes = shim::stored_bytes = 0;
  launch(place);
  if (shim::launches != before + 1) fail("expected one launch");
  for (std::int64_t i = 0; i < geco::cuda::kTicketWords; ++i) {
    if (workspace[i] != 0) fail("a ticket is left");
  }
  if (reads == 0) return;
  const long of_operand = shape.elements() * size_of(shape.type);
  const long of_sums = shape.batch * (shape.type == DataType::kFloat64 ? 8 : 4);
  if (shim::loaded_bytes != reads * of_operand) fail("loads " + std::to_string(shim::loaded_bytes) + " bytes");
  if (shim::stored_bytes != writes * of_operand && shim::stored_bytes != writes * of_operand + of_sums) {
    fail("stores " + std::to_string(shim::stored_bytes) + " bytes");
  }
}

void gaussian(const Shape& shape, bool has_prior) {
  const Array q_mean = shape.operand(), q_log_std = shape.logarithms(), noise = shape.operand();
  const Array p_mean = has_prior ? shape.operand() : Array(), p_log_std = has_prior ? shape.logarithms() : Array();
  const Array z = shape.output(), kl = shape.numbers(), of_z = shape.operand(), of_kl = shape.numbers();
  const Array by[] = {shape.output(), shape.output(), shape.output(), shape.output()};
  auto forward = call_of<geco::GaussianCall>(shape);
  auto backward = call_of<geco::GaussianBackwardCall>(shape);
  forward.q_mean = backward.q_mean = strided(q_mean);
  forward.q_log_std = backward.q_log_std = strided(q_log_std);
  forward.noise = backward.noise = strided(noise);
  if (has_prior) {
    forward.p_mean = backward.p_mean = strided(p_mean);
    forward.p_log_std = backward.p_log_std = strided(p_log_std);
    backward.of_p_mean = strided(by[2]);
    backward.of_p_log_std = strided(by[3]);
  }
  forward.z = strided(z);
  forward.kl = per_example(kl);
  backward.grad_z = strided(of_z);
  backward.grad_kl = per_example(of_kl);
  backward.of_q_mean = strided(by[0]);
  backward.of_q_log_std = strided(by[1]);
  launched([&](const auto& place) { geco::cuda::compute(forward, place); }, shape, has_prior ? 5 : 3, 1);
  launched([&](const auto& place) { geco::cuda::compute(backward, place); }, shape, 0, 0);

  for (std::int64_t b = 0; b < shape.batch; ++b) {
    double sum = 0;
    for (std::int64_t i = b * shape.of_example(); i < (b + 1) * shape.of_example(); ++i) {
      const double mean = q_mean.get(i), log_std = q_log_std.get(i), std = std::exp(log_std);
      const double prior_log_std = has_prior ? p_log_std.get(i) : 0, ratio = std::exp(2 * (log_std - prior_log_std));
      const double precision = std::exp(-prior_log_std);
      const double distance = (mean - (has_prior ? p_mean.get(i) : 0)) * precision;
      const double gradient = of_kl.get(b), scale = 1 + std::abs(gradient) * (ratio + distance * distance + std);
      sum += prior_log_std - log_std + 0.5 * (ratio + distance * distance - 1);
      expect("z", z, i, mean + std * noise.get(i), 1 + std * 4, shape.type);
      expect("by q_mean", by[0], i, of_z.get(i) + gradient * distance * precision, scale, shape.type);
      const double by_log_std = gradient * (ratio - 1);
      expect("by q_log_std", by[1], i, of_z.get(i) * std * noise.get(i) + by_log_std, scale, shape.type);
      if (!has_prior) continue;
      expect("by p_mean", by[2], i, -gradient * distance * precision, scale, shape.type);
      expect("by p_log_std", by[3], i, -by_log_std - gradient * distance * distance, scale, shape.type);
    }
    expect("kl", kl, b, sum, 1, arrays::gradient_type(shape.type));
  }
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

void gates(const Shape& shape) {
  const Array gates = shape.operand(4), cell = shape.operand(), of_hidden = shape.operand(), of_cell = shape.operand();
  const Array hidden = shape.output(), new_cell = shape.output(), by_gates = shape.output(4), by_cell = shape.output();
  auto forward = call_of<geco::GatesCall>(shape);
  auto backward = call_of<geco::GatesBackwardCall>(shape);
  forward.gates = backward.gates = strided(gates);
  forward.cell = backward.cell = strided(cell);
  forward.hidden = strided(hidden);
  forward.new_cell = strided(new_cell);
  backward.grad_hidden = strided(of_hidden);
  backward.grad_cell = strided(of_cell);
  backward.of_gates = strided(by_gates);
  backward.of_cell = strided(by_cell);
  launched([&](const auto& place) { geco::cuda::compute(forward, place); }, shape, 5, 2);
  launched([&](const auto& place) { geco::cuda::compute(backward, place); }, shape, 7, 5);

  for (std::int64_t n = 0; n < shape.elements(); ++n) {
    const std::int64_t first = n / shape.inner * 4 * shape.inner + n % shape.inner;
    const auto at = [&](int k) { return first + k * shape.inner; };
    const double i = sigmoid(gates.get(at(0))), f = sigmoid(gates.get(at(1))), g = std::tanh(gates.get(at(2)));
    const double o = sigmoid(gates.get(at(3))), next = f * cell.get(n) + i * g, squashed = std::tanh(next);
    const double by_next = of_cell.get(n) + of_hidden.get(n) * o * (1 - squashed * squashed);
    expect("cell", new_cell, n, next, 1, shape.type);
    expect("hidden", hidden, n, o * squashed, 1, shape.type);
    expect("by input gate", by_gates, at(0), by_next * g * i * (1 - i), 1, shape.type);
    expect("by forget gate", by_gates, at(1), by_next * cell.get(n) * f * (1 - f), 1, shape.type);
    expect("by candidate", by_gates, at(2), by_next * i * (1 - g * g), 1, shape.type);
    expect("by output gate", by_gates, at(3), of_hidden.get(n) * squashed * o * (1 - o), 1, shape.type);
    expect("by cell", by_cell, n, by_next * f, 1, shape.type);
  }
}

void coupling(const Shape& shape, bool inverse) {
  const Array x = shape.operand(), log_scale = shape.logarithms(), shift = shape.operand(), of_y = shape.operand();
  const Array y = shape.output(), log_det = shape.numbers(), of_log_det = shape.numbers();
  const Array by_x = shape.output(), by_log_scale = shape.output(), by_shift = shape.output();
  auto forward = call_of<geco::CouplingCall>(shape);
  auto backward = call_of<geco::CouplingBackwardCall>(shape);
  forward.inverse = backward.inverse = inverse;
  forward.x = strided(x);
  forward.log_scale = backward.log_scale = strided(log_scale);
  forward.shift = strided(shift);
  forward.y = strided(y);
  forward.log_det = per_example(log_det);
  backward.grad_y = strided(of_y);
  backward.grad_log_det = per_example(of_log_det);
  backward.value = strided(inverse ? y : x);
  backward.of_x = strided(by_x);
  backward.of_log_scale = strided(by_log_scale);
  if (inverse) backward.of_shift = strided(by_shift);
  launched([&](const auto& place) { geco::cuda::compute(forward, place); }, shape, 3, 1);
  launched([&](const auto& place) { geco::cuda::compute(backward, place); }, shape, 0, 0);

  for (std::int64_t b = 0; b < shape.batch; ++b) {
    double sum = 0, magnitude = 1;
    for (std::int64_t i = b * shape.of_example(); i < (b + 1) * shape.of_example(); ++i) {
      const double logarithm = inverse ? -log_scale.get(i) : log_scale.get(i), factor = std::exp(logarithm);
      const double result = inverse ? (x.get(i) - shift.get(i)) * factor : x.get(i) * factor + shift.get(i);
      const double by_value = of_y.get(i) * factor * x.get(i);
      const double by_scale = inverse ? -of_y.get(i) * y.get(i) - of_log_det.get(b) : by_value + of_log_det.get(b);
      sum += logarithm;
      magnitude += std::abs(logarithm);
      expect("y", y, i, result, 1 + 4 * factor, shape.type);
      expect("by x", by_x, i, of_y.get(i) * factor, 1, shape.type);
      expect("by log_scale", by_log_scale, i, by_scale, 1 + std::abs(by_value), shape.type);
      if (inverse) expect("by shift", by_shift, i, -of_y.get(i) * factor, 1, shape.type);
    }
    expect("log_det", log_det, b, sum, magnitude, arrays::gradient_type(shape.type));
  }
}

void every_kernel(const Shape& shape) {
  const auto text = [](std::int64_t number) { return " " + std::to_string(number); };
  scenario = "type" + text(static_cast<int>(shape.type)) + ", shape" + text(shape.batch) + text(shape.rows) +
             text(shape.inner) + ", layout" + text(static_cast<int>(shape.layout)) + ", shift" + text(shape.shift);
  gaussian(shape, true);
  gaussian(shape, false);
  gates(shape);
  coupling(shape, false);
  coupling(shape, true);
}

// Groups of one thread, of some of a warp, of several warps and of all of a block; rows; vectors and single numbers;
// examples with a remainder, and large ones that several blocks share.
void all(bool large) {
  for (DataType type : kFloats) {
    for (Layout layout : {Layout::kContiguous, Layout::kShifted, Layout::kWider}) {
      every_kernel({type, 3, 1, 1, layout});
      every_kernel({type, 5, 6, 8, layout});
      every_kernel({type, 3, 1, 70, layout});
      every_kernel({type, 2, 5, 7, layout});
      every_kernel({type, 70, 1, 16, layout});
      every_kernel({type, 3, 1, 520, layout});
    }
    if (large) every_kernel({type, 2, 1, 16 * 1024 + 8, Layout::kContiguous});
    if (large) every_kernel({type, 2, 400, 24, Layout::kShifted});
  }
}

// Bases off the grid of 16 bytes and examples or rows whose starts are, sizes around multiples of vectors; more
// examples than a grid's second dimension could count.
void odd_sizes(std::int64_t examples) {
  for (DataType type : kFloats) {
    for (std::int64_t shift : {1, 2, 4}) every_kernel({type, 3, 2, 16, Layout::kContiguous, shift});
    for (std::int64_t inner : {7, 8, 9, 127, 129}) every_kernel({type, 3, 1, inner, Layout::kContiguous});
    every_kernel({type, 3, 4, 16, Layout::kCropped});
    every_kernel({type, examples, 1, 2, Layout::kContiguous});
  }
  every_kernel({DataType::kFloat32, examples, 1, 4, Layout::kContiguous});
}

// As many blocks as an H100 is given, few of them at a time.
void large_device() {
  shim::settings.multiprocessors = 132;
  shim::settings.l2_bytes = 50 << 20;
  shim::settings.blocks_in_flight = 8;
  every_kernel({DataType::kFloat32, 2, 1, 4 * 8 * geco::cuda::kThreads, Layout::kContiguous});
  every_kernel({DataType::kBFloat16, 300, 1, 64, Layout::kContiguous});
  every_kernel({DataType::kFloat64, 3, 40, 24, Layout::kWider});
}

}  // namespace

int main(int count, char** arguments) {
  const std::string what = count > 1 ? arguments[1] : "all";
  if (what == "races") {
    if (count > 3) {
      const int which = std::atoi(arguments[3]);
      (std::strcmp(arguments[2], "barrier") == 0 ? shim::settings.drop_barrier : shim::settings.drop_fence) = which;
    }
    // Two blocks to an example. Where something was left out, one kernel is enough.
    const Shape shared{DataType::kFloat32, 2, 1, 32 * geco::cuda::kThreads, Layout::kContiguous};
    if (count > 3) {
      coupling(shared, false);
    } else {
      every_kernel(shared);
    }
  } else if (what == "h100") {
    large_device();
  } else {
    all(what == "all");
    odd_sizes(what == "all" ? 70001 : 3001);
  }
  std::printf("%ld launches\n", shim::launches);
  return 0;
}

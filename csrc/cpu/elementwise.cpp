#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/constraints.h"
#include "cpu/isa/kernels.h"
#include "cpu/parallel.h"
#include "cpu/step.h"
#include "math/half.h"

namespace geco::cpu {

double read_element(const Tensor& tensor, std::int64_t offset) {
  switch (tensor.type) {
    case DataType::kFloat32: return static_cast<const float*>(tensor.data)[offset];
    case DataType::kFloat64: return static_cast<const double*>(tensor.data)[offset];
    case DataType::kFloat16: return to_float(static_cast<const Half*>(tensor.data)[offset]);
    case DataType::kBFloat16: return to_float(static_cast<const BFloat16*>(tensor.data)[offset]);
    default: return static_cast<double>(static_cast<const std::int64_t*>(tensor.data)[offset]);
  }
}

void write_element(const Tensor& tensor, std::int64_t offset, double value) {
  if (tensor.type == DataType::kFloat64) {
    static_cast<double*>(tensor.data)[offset] = value;
  } else {
    static_cast<float*>(tensor.data)[offset] = static_cast<float>(value);
  }
}

namespace {

// A step that moves more than the last cache holds writes its gradient past the caches: the line need not be read
// before it is overwritten (3N of traffic instead of 4N). Below that size it would only push the gradient out of the
// cache that backward reads it from. Measured at 0.78 of torch.add's time above, 1.7 times below (bench/README.md).
std::int64_t last_cache_bytes() {
  static const std::int64_t bytes = [] {
    long found = 0;
#if defined(_SC_LEVEL3_CACHE_SIZE)
    found = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    return found > 0 ? static_cast<std::int64_t>(found) : std::int64_t{32} << 20;
  }();
  return bytes;
}

constexpr std::int64_t kChunk = 1 << 14;  // elements that a thread takes at a time

const char* element(const Tensor& tensor, std::int64_t offset) {
  return static_cast<const char*>(tensor.data) + offset * size_of(tensor.type);
}

// One measure in a pass over an input: per channel (or once) a coefficient, and then the sum of its values.
struct Pass {
  MeasureLoop loop;
  double eps;
  std::vector<double> coefficients, sums;
};

// The sums of all passes, and the gradient. A thread makes one pass after the other over the elements that it takes at
// a time: they are in a cache from the second on. `adds`: to what the gradient holds.
void run_passes(const Input& input, std::vector<Pass>& passes, bool adds, int threads) {
  const bool per_channel = passes[0].coefficients.size() > 1;
  const LoopNest loops = loop_nest(input, per_channel);
  const std::int64_t channels = loops.channel.size;
  const std::int64_t pieces = (loops.inner.size + kChunk - 1) / kChunk;                // a long loop is cut,
  const std::int64_t together = std::max<std::int64_t>(1, kChunk / loops.inner.size);  // short ones are bundled
  const std::int64_t items = pieces > 1 ? loops.iterations * pieces : (loops.iterations + together - 1) / together;
  const std::int64_t elements = input.prediction.elements();
  const bool stream = 3 * elements * std::int64_t{sizeof(float)} > last_cache_bytes() && passes.size() == 1;

  const std::size_t count = passes.size();
  std::vector<double> partial(static_cast<std::size_t>(channels * items) * count);
  const auto piece = [&](std::int64_t channel, std::int64_t iteration, std::int64_t begin, std::int64_t length,
                         double* sums) {
    const Offsets at = offsets_of(loops, channel, iteration);
    InnerLoop loop{};
    loop.prediction = element(input.prediction, at.prediction + begin * loops.inner.prediction);
    loop.target = element(input.target, at.target + begin * loops.inner.target);
    if (input.gradient) {
      loop.gradient = const_cast<char*>(element(input.gradient, at.gradient + begin * loops.inner.gradient));
    }
    if (input.weights) loop.weights = element(input.weights, at.weights + begin * loops.inner.weights);
    loop.length = length;
    loop.prediction_stride = loops.inner.prediction;
    loop.target_stride = loops.inner.target;
    loop.gradient_stride = loops.inner.gradient;
    loop.weights_stride = loops.inner.weights;
    for (std::size_t m = 0; m < count; ++m) {
      loop.adds = adds || m > 0;
      const double coefficient = passes[m].coefficients[static_cast<std::size_t>(channel)];
      sums[m] += passes[m].loop(loop, passes[m].eps, coefficient, stream);
    }
  };
  parallel_for(channels * items, elements < kParallelElements ? 1 : threads, [&](std::int64_t index) {
    const std::int64_t channel = index / items, item = index % items;
    double* const sums = partial.data() + static_cast<std::size_t>(index) * count;
    if (pieces > 1) {
      const std::int64_t begin = item % pieces * kChunk;
      piece(channel, item / pieces, begin, std::min(kChunk, loops.inner.size - begin), sums);
    } else {
      const std::int64_t last = std::min(loops.iterations, (item + 1) * together);
      for (std::int64_t iteration = item * together; iteration < last; ++iteration) {
        piece(channel, iteration, 0, loops.inner.size, sums);
      }
    }
  });

  for (std::size_t m = 0; m < count; ++m) {
    passes[m].sums.assign(static_cast<std::size_t>(channels), 0.0);
    for (std::int64_t index = 0; index < channels * items; ++index) {
      passes[m].sums[static_cast<std::size_t>(index / items)] += partial[static_cast<std::size_t>(index) * count + m];
    }
  }
}

// All measures of one input, or those that the sweep of its patches has left.
void measure_input(const LossCall& call, int i, double* c_hat) {
  const Input& input = call.inputs[i];
  const bool swept = has_patches(call, i);
  std::vector<MeasuredConstraints> measured;
  int channels = 0;
  for (const Measure& measure : measures_of(call, i)) {
    if (swept && measure.kind == ConstraintKind::kSquaredError) continue;
    measured.emplace_back(call, i, measure);
    channels = std::max(channels, measured.back().channels());
  }
  if (measured.empty()) return;
  std::vector<Pass> passes;
  for (MeasuredConstraints& constraints : measured) {
    constraints.split(channels);
    const auto& loops = input.weights ? kernels().weighted : kernels().measures;
    const MeasureLoop loop = loops[measure_number(constraints.measure().kind)][static_cast<int>(input.prediction.type)]
                                  [static_cast<int>(input.target.type)];
    passes.push_back({loop, constraints.measure().eps, constraints.coefficients(), {}});
  }
  run_passes(input, passes, swept, call.threads);
  for (std::size_t m = 0; m < passes.size(); ++m) measured[m].add(passes[m].sums, c_hat);
}

}  // namespace

MeasuredConstraints::MeasuredConstraints(const LossCall& call, int input, const Measure& measure)
    : call_(call), input_(call.inputs[input]), measure_(measure) {
  for (const Constraint& constraint : *call.constraints) {
    const bool reads = std::find(constraint.inputs.begin(), constraint.inputs.end(), input) != constraint.inputs.end();
    if (!(measure_of(constraint) == measure) || !reads) continue;
    constraints_.push_back(&constraint);
    channels_ = std::max(channels_, constraint.rows);
  }
}

std::vector<double> MeasuredConstraints::coefficients() const {
  std::vector<double> coefficients(static_cast<std::size_t>(channels_), 0.0);
  for (const Constraint* constraint : constraints_) {
    const double weight = difference_weight(*constraint, input_), elements = compared_elements(call_, *constraint);
    for (int c = 0; c < channels_; ++c) {
      const int row = constraint->first_row + (constraint->rows > 1 ? c : 0);
      const double multiplier = std::exp(log_multiplier(scale_rule(constraint->kind), call_.state, row, elements));
      coefficients[c] += measure_coefficient(measure_.kind, multiplier, weight, static_cast<double>(call_.batch));
    }
  }
  return coefficients;
}

void MeasuredConstraints::add(const std::vector<double>& sums, double* c_hat) const {
  for (const Constraint* constraint : constraints_) {
    const double weight = difference_weight(*constraint, input_);
    for (int c = 0; c < channels_; ++c) {
      c_hat[constraint->first_row + (constraint->rows > 1 ? c : 0)] +=
          weight * sums[c] / static_cast<double>(call_.batch);
    }
  }
}

void elementwise_constraints(const LossCall& call, double* c_hat) {
  for (int i = 0; i < static_cast<int>(call.inputs.size()); ++i) measure_input(call, i, c_hat);
  for (const Constraint& constraint : *call.constraints) {
    if (!is_elementwise(constraint.kind)) continue;
    for (int row = constraint.first_row; row < constraint.first_row + constraint.rows; ++row) {
      c_hat[row] = constraint_value(scale_rule(constraint.kind), c_hat[row], call.state.at(Row::kKappa, row));
    }
  }
}

double mean_of_examples(const Tensor& values, const Tensor& gradient, double multiplier) {
  const std::int64_t count = values.elements();
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += read_element(values, i * values.strides[0]);
  if (gradient) {
    for (std::int64_t i = 0; i < count; ++i) {
      write_element(gradient, i * gradient.strides[0], multiplier / static_cast<double>(count));
    }
  }
  return sum / static_cast<double>(count);
}

void scalar(const LossCall& call, const Constraint& constraint, double* c_hat) {
  const Input& input = call.inputs[constraint.inputs[0]];
  const ScaleRule rule = scale_rule(constraint.kind);
  const double log_lambda = log_multiplier(rule, call.state, constraint.first_row, compared_elements(call, constraint));
  const double slope = sign_of_measured(rule) * std::exp(log_lambda);
  const double mean = mean_of_examples(input.prediction, input.gradient, slope);
  c_hat[constraint.first_row] = constraint_value(rule, mean, call.state.at(Row::kKappa, constraint.first_row));
}

namespace {

constexpr std::int64_t kScaleChunk = 1 << 15;

// Buffers and outputs are dense and share their strides, so memory order is the same in both.
void scale_gradient(const Tensor& gradient, const Tensor& output, double factor, int threads) {
  const std::int64_t elements = gradient.elements();
  const bool is_double = gradient.type == DataType::kFloat64;
  const ScaleLoop scale = kernels().scale[static_cast<int>(output.type)];
  const std::int64_t chunks = (elements + kScaleChunk - 1) / kScaleChunk;
  parallel_for(chunks, elements < kParallelElements ? 1 : threads, [&](std::int64_t item) {
    const std::int64_t begin = item * kScaleChunk, length = std::min(kScaleChunk, elements - begin);
    if (is_double) {
      const double* in = static_cast<const double*>(gradient.data) + begin;
      double* out = static_cast<double*>(output.data) + begin;
      for (std::int64_t i = 0; i < length; ++i) out[i] = in[i] * factor;
    } else {
      scale(static_cast<const float*>(gradient.data) + begin,
            static_cast<char*>(output.data) + begin * size_of(output.type), length, static_cast<float>(factor));
    }
  });
}

}  // namespace

void scale_gradients(const Tensor* gradients, const Tensor* outputs, int count, double factor, int threads) {
  for (int i = 0; i < count; ++i) {
    const bool in_place = outputs[i].data == gradients[i].data;
    if (in_place && factor == 1.0) continue;
    scale_gradient(gradients[i], outputs[i], factor, threads);
  }
}

}  // namespace geco::cpu

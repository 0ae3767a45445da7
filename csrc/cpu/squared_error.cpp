#include <algorithm>
#include <vector>

#include "cpu/lagrangian.h"
#include "cpu/parallel.h"
#include "cpu/run.h"
#include "math/terms.h"

namespace geco::cpu {
namespace {

// A gradient larger than this is written past the caches: it would push x_hat and x out of them, and be gone itself
// before the backward pass reads it. Measured: bench/results.
constexpr std::int64_t kStreamBytes = 4 << 20;

constexpr std::int64_t kChunk = 1 << 14;  // elements of one work item

struct Dimension {
  std::int64_t size, prediction, target, gradient;
};

// The elements of an input as lines in memory order, channel by channel where the constraints are per channel.
struct Lines {
  Dimension channel{1, 0, 0, 0};
  std::vector<Dimension> outer;
  Dimension inner{1, 1, 1, 1};
  std::int64_t lines = 1;  // per channel
};

Lines lines_of(const Input& input, bool per_channel) {
  Lines result;
  std::vector<Dimension> dimensions;
  const bool has_gradient = static_cast<bool>(input.gradient);
  for (int d = 0; d < input.prediction.rank; ++d) {
    const Dimension dimension{input.prediction.sizes[d], input.prediction.strides[d], input.target.strides[d],
                              has_gradient ? input.gradient.strides[d] : input.prediction.strides[d]};
    if (per_channel && d == 1) {
      result.channel = dimension;
    } else if (dimension.size != 1) {
      dimensions.push_back(dimension);
    }
  }
  std::stable_sort(dimensions.begin(), dimensions.end(),
                   [](const Dimension& a, const Dimension& b) { return a.gradient > b.gradient; });
  std::vector<Dimension> merged;
  for (const Dimension& d : dimensions) {
    Dimension* last = merged.empty() ? nullptr : &merged.back();
    if (last && last->prediction == d.prediction * d.size && last->target == d.target * d.size &&
        last->gradient == d.gradient * d.size) {
      *last = {last->size * d.size, d.prediction, d.target, d.gradient};
    } else {
      merged.push_back(d);
    }
  }
  if (!merged.empty()) {
    result.inner = merged.back();
    merged.pop_back();
  }
  for (const Dimension& d : merged) result.lines *= d.size;
  result.outer = std::move(merged);
  return result;
}

struct Offsets {
  std::int64_t prediction, target, gradient;
};

Offsets offsets_of(const Lines& lines, std::int64_t channel, std::int64_t line) {
  Offsets at{channel * lines.channel.prediction, channel * lines.channel.target, channel * lines.channel.gradient};
  for (auto d = lines.outer.rbegin(); d != lines.outer.rend(); ++d) {
    const std::int64_t index = line % d->size;
    line /= d->size;
    at.prediction += index * d->prediction;
    at.target += index * d->target;
    at.gradient += index * d->gradient;
  }
  return at;
}

const char* element(const Tensor& tensor, std::int64_t offset) {
  return static_cast<const char*>(tensor.data) + offset * size_of(tensor.type);
}

// One pass over an input: per channel (or once) the sum of squared differences, and the gradient.
std::vector<double> squared_error_sums(const Input& input, const std::vector<double>& coefficients, int threads) {
  const bool per_channel = coefficients.size() > 1;
  const Lines lines = lines_of(input, per_channel);
  const std::int64_t channels = lines.channel.size;
  const std::int64_t pieces = (lines.inner.size + kChunk - 1) / kChunk;                // a long line is cut,
  const std::int64_t together = std::max<std::int64_t>(1, kChunk / lines.inner.size);  // short ones are bundled
  const std::int64_t items = pieces > 1 ? lines.lines * pieces : (lines.lines + together - 1) / together;
  const std::int64_t elements = input.prediction.elements();
  const bool stream = elements * 4 >= kStreamBytes;
  const SquaredErrorRun run_line =
      run_table().squared_error[static_cast<int>(input.prediction.type)][static_cast<int>(input.target.type)];

  std::vector<double> partial(static_cast<std::size_t>(channels * items));
  const auto line_piece = [&](std::int64_t channel, std::int64_t line, std::int64_t begin, std::int64_t length) {
    const Offsets at = offsets_of(lines, channel, line);
    Run run{};
    run.prediction = element(input.prediction, at.prediction + begin * lines.inner.prediction);
    run.target = element(input.target, at.target + begin * lines.inner.target);
    if (input.gradient) {
      run.gradient = const_cast<char*>(element(input.gradient, at.gradient + begin * lines.inner.gradient));
    }
    run.length = length;
    run.prediction_stride = lines.inner.prediction;
    run.target_stride = lines.inner.target;
    run.gradient_stride = lines.inner.gradient;
    return run_line(run, coefficients[static_cast<std::size_t>(channel)], stream);
  };
  parallel_for(channels * items, elements < kParallelElements ? 1 : threads, [&](std::int64_t index) {
    const std::int64_t channel = index / items, item = index % items;
    double sum = 0;
    if (pieces > 1) {
      const std::int64_t begin = item % pieces * kChunk;
      sum = line_piece(channel, item / pieces, begin, std::min(kChunk, lines.inner.size - begin));
    } else {
      const std::int64_t last = std::min(lines.lines, (item + 1) * together);
      for (std::int64_t line = item * together; line < last; ++line) {
        sum += line_piece(channel, line, 0, lines.inner.size);
      }
    }
    partial[static_cast<std::size_t>(index)] = sum;
  });

  std::vector<double> sums(static_cast<std::size_t>(channels), 0.0);
  for (std::int64_t index = 0; index < channels * items; ++index) {
    sums[static_cast<std::size_t>(index / items)] += partial[static_cast<std::size_t>(index)];
  }
  return sums;
}

bool reads(const Term& term, int input) {
  return term.kind == TermKind::kSquaredError &&
         std::find(term.inputs.begin(), term.inputs.end(), input) != term.inputs.end();
}

}  // namespace

void squared_errors(const Call& call, double* c_hat) {
  const double batch = static_cast<double>(call.batch);
  for (int i = 0; i < static_cast<int>(call.inputs.size()); ++i) {
    const Input& input = call.inputs[i];
    int channels = 0;
    for (const Term& term : *call.terms) {
      if (reads(term, i)) channels = std::max(channels, term.rows);
    }
    if (channels == 0) continue;
    // All terms that read this input share the pass: their coefficients add up.
    std::vector<double> coefficients(static_cast<std::size_t>(channels), 0.0);
    for (const Term& term : *call.terms) {
      if (!reads(term, i) || !input.gradient) continue;
      const double weight = squared_error_weight(term, input), elements = compared_elements(call, term);
      for (int c = 0; c < channels; ++c) {
        const int row = term.first_row + (term.rows > 1 ? c : 0);
        const double multiplier = std::exp(log_multiplier(term.scale, call.state, row, elements));
        coefficients[c] += squared_error_coefficient(multiplier, weight, batch);
      }
    }
    const std::vector<double> sums = squared_error_sums(input, coefficients, call.threads);
    for (const Term& term : *call.terms) {
      if (!reads(term, i)) continue;
      const double weight = squared_error_weight(term, input);
      for (int c = 0; c < channels; ++c) {
        const int row = term.first_row + (term.rows > 1 ? c : 0);
        c_hat[row] += weight * sums[c] / batch;
      }
    }
  }
  for (const Term& term : *call.terms) {
    if (term.kind != TermKind::kSquaredError) continue;
    for (int row = term.first_row; row < term.first_row + term.rows; ++row) {
      const double kappa = call.state.at(Row::kKappa, row);
      c_hat[row] -= kappa * kappa;
    }
  }
}

}  // namespace geco::cpu

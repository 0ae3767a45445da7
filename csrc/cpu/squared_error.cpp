#include "cpu/squared_error.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/lagrangian.h"
#include "cpu/parallel.h"
#include "cpu/run.h"
#include "lines.h"
#include "math/terms.h"

namespace geco::cpu {
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

constexpr std::int64_t kChunk = 1 << 14;  // elements of one work item

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
  const bool stream = 3 * elements * std::int64_t{sizeof(float)} > last_cache_bytes();
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

}  // namespace

SquaredErrorTerms::SquaredErrorTerms(const Call& call, int input) : call_(call), input_(call.inputs[input]) {
  for (const Term& term : *call.terms) {
    const bool reads = std::find(term.inputs.begin(), term.inputs.end(), input) != term.inputs.end();
    if (term.kind != TermKind::kSquaredError || !reads) continue;
    terms_.push_back(&term);
    channels_ = std::max(channels_, term.rows);
  }
}

std::vector<double> SquaredErrorTerms::coefficients() const {
  std::vector<double> coefficients(static_cast<std::size_t>(channels_), 0.0);
  for (const Term* term : terms_) {
    const double weight = squared_error_weight(*term, input_), elements = compared_elements(call_, *term);
    for (int c = 0; c < channels_; ++c) {
      const int row = term->first_row + (term->rows > 1 ? c : 0);
      const double multiplier = std::exp(log_multiplier(scale_rule(term->kind), call_.state, row, elements));
      coefficients[c] += squared_error_coefficient(multiplier, weight, static_cast<double>(call_.batch));
    }
  }
  return coefficients;
}

void SquaredErrorTerms::add(const std::vector<double>& sums, double* c_hat) const {
  for (const Term* term : terms_) {
    const double weight = squared_error_weight(*term, input_);
    for (int c = 0; c < channels_; ++c) {
      c_hat[term->first_row + (term->rows > 1 ? c : 0)] += weight * sums[c] / static_cast<double>(call_.batch);
    }
  }
}

void squared_errors(const Call& call, double* c_hat) {
  for (int i = 0; i < static_cast<int>(call.inputs.size()); ++i) {
    const SquaredErrorTerms terms(call, i);
    if (terms.channels() == 0 || has_windows(call, i)) continue;
    terms.add(squared_error_sums(call.inputs[i], terms.coefficients(), call.threads), c_hat);
  }
  for (const Term& term : *call.terms) {
    if (term.kind != TermKind::kSquaredError) continue;
    for (int row = term.first_row; row < term.first_row + term.rows; ++row) {
      c_hat[row] = constraint_value(scale_rule(term.kind), c_hat[row], call.state.at(Row::kKappa, row));
    }
  }
}

}  // namespace geco::cpu

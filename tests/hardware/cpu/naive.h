// The constraints and their gradients as sums over definitions, in double.
#pragma once

#include <cmath>
#include <vector>

#include "arrays.h"
#include "elementwise_definitions.h"

namespace naive {

using arrays::Array;
using geco::Constraint;
using geco::ConstraintKind;

// One input: numbers in the order of their indices, and d loss / d prediction.
struct Pair {
  std::int64_t batch, channels, height, width;  // 1 where there are fewer dimensions
  std::vector<double> prediction, target, gradient;
  std::vector<double> weights;  // none: all numbers count alike

  Pair(const Array& of_prediction, const Array& of_target) {
    const geco::Tensor tensor = of_prediction.tensor();
    const auto size = [&tensor](int d) { return d < tensor.rank ? tensor.sizes[d] : 1; };
    batch = size(0), channels = size(1), height = size(2), width = size(3);
    for (std::int64_t i = 0; i < of_prediction.elements(); ++i) prediction.push_back(of_prediction.get(i));
    for (std::int64_t i = 0; i < of_target.elements(); ++i) target.push_back(of_target.get(i));
    gradient.assign(prediction.size(), 0.0);
  }

  // Of each channel or of all.
  void weigh(const Array& of_elements) {
    const std::int64_t pixels = height * width, of_example = channels * pixels;
    const bool shared = channels > 1 && of_elements.elements() == batch * pixels;
    for (std::int64_t i = 0; i < batch * of_example; ++i) {
      weights.push_back(of_elements.get(shared ? i / of_example * pixels + i % pixels : i));
    }
  }

  std::size_t index(std::int64_t b, std::int64_t c, std::int64_t h, std::int64_t w) const {
    return static_cast<std::size_t>(((b * channels + c) * height + h) * width + w);
  }
};

// An error of the numbers: the mean over the batch before the tolerance, of one channel or (-1) of all.
inline double error(std::vector<Pair>& pairs, const Constraint& constraint, std::int64_t channel, double multiplier) {
  double result = 0;
  for (int input : constraint.inputs) {
    Pair& pair = pairs[static_cast<std::size_t>(input)];
    const std::size_t per_example = pair.prediction.size() / static_cast<std::size_t>(pair.batch);
    const std::size_t per_channel = per_example / static_cast<std::size_t>(pair.channels);
    const double compared = static_cast<double>(channel < 0 ? per_example : per_channel);
    const bool averages = constraint.mean && pair.weights.empty();
    const double of_all = (averages ? 1.0 / (static_cast<double>(constraint.inputs.size()) * compared) : 1.0) /
                          static_cast<double>(pair.batch);
    for (std::size_t i = 0; i < pair.prediction.size(); ++i) {
      if (channel >= 0 && i % per_example / per_channel != static_cast<std::size_t>(channel)) continue;
      const double weight = pair.weights.empty() ? of_all : of_all * pair.weights[i];
      if (weight == 0) continue;
      const definitions::Measured m =
          definitions::measured(constraint.kind, pair.prediction[i] - pair.target[i], constraint.eps);
      result += weight * m.value;
      pair.gradient[i] += multiplier * weight * m.derivative;
    }
  }
  return result;
}

// Table 1, pNCC and local statistics; SSIM: patch by patch, number by number.
inline double windowed(Pair& pair, const Constraint& constraint, double multiplier) {
  const geco::Patches& patches = constraint.patches;
  const std::int64_t rows = geco::positions(pair.height, patches), columns = geco::positions(pair.width, patches);
  const std::int64_t groups = patches.per_channel ? pair.channels : 1, together = pair.channels / groups;
  const double numbers = static_cast<double>(together * patches.size * patches.size);
  const double weight = 1.0 / static_cast<double>(pair.batch * groups * rows * columns);
  double result = 0;
  std::vector<std::size_t> patch;
  for (std::int64_t item = 0; item < pair.batch * groups * rows * columns; ++item) {
    const std::int64_t left = item % columns * patches.stride, top = item / columns % rows * patches.stride;
    const std::int64_t first = item / columns / rows % groups * together, b = item / columns / rows / groups;
    patch.clear();
    for (std::int64_t c = first; c < first + together; ++c) {
      for (std::int64_t h = top; h < top + patches.size; ++h) {
        for (std::int64_t w = left; w < left + patches.size; ++w) patch.push_back(pair.index(b, c, h, w));
      }
    }
    double mean_hat = 0, mean = 0, var_hat = 0, var = 0, cov = 0;
    for (std::size_t i : patch) mean_hat += pair.prediction[i] / numbers, mean += pair.target[i] / numbers;
    for (std::size_t i : patch) {
      const double from_hat = pair.prediction[i] - mean_hat, from = pair.target[i] - mean;
      var_hat += from_hat * from_hat / numbers, var += from * from / numbers, cov += from_hat * from / numbers;
    }
    if (constraint.kind == ConstraintKind::kStructuralSimilarity) {
      const double c1 = patches.eps, c2 = 9 * patches.eps;
      const double of_means = mean_hat * mean_hat + mean * mean + c1, of_variances = var_hat + var + c2;
      const double luminance = (2 * mean_hat * mean + c1) / of_means, structure = (2 * cov + c2) / of_variances;
      result += weight * luminance * structure;
      for (std::size_t i : patch) {
        const double from_hat = pair.prediction[i] - mean_hat, from = pair.target[i] - mean;
        const double by_structure = 2 * (from - structure * from_hat) / of_variances;
        const double by_luminance = 2 * (mean - mean_hat * luminance) / of_means;
        const double derivative = luminance * by_structure + structure * by_luminance;
        pair.gradient[i] -= multiplier * weight * derivative / numbers;
      }
      continue;
    }
    const double d_hat = std::sqrt(var_hat + patches.eps), d = std::sqrt(var + patches.eps);
    const double correlation = (cov + patches.eps) / (d_hat * d);
    const double mean_gap = mean_hat - mean, deviation_gap = d_hat - d;
    const bool correlates = constraint.kind == ConstraintKind::kPatchCorrelation;
    result += weight * (correlates ? correlation : (mean_gap * mean_gap + deviation_gap * deviation_gap) / 2);
    for (std::size_t i : patch) {
      const double from_hat = (pair.prediction[i] - mean_hat) / d_hat, from = (pair.target[i] - mean) / d;
      const double derivative =
          correlates ? -(from - correlation * from_hat) / d_hat : mean_gap + deviation_gap * from_hat;
      pair.gradient[i] += multiplier * weight * derivative / numbers;
    }
  }
  return result;
}

// The mean of one number for each example.
inline double mean(Pair& pair, double derivative) {
  double result = 0;
  const double count = static_cast<double>(pair.prediction.size());
  for (double value : pair.prediction) result += value / count;
  for (double& gradient : pair.gradient) gradient += derivative / count;
  return result;
}

}  // namespace naive

// Windowed constraints by their definition: every patch on its own, in float64. Nothing here is shared with a kernel.
#pragma once

#include <cmath>
#include <vector>

#include "problem.h"

namespace oracle {

struct Answer {
  double constraint = 0;         // average over the batch
  std::vector<double> gradient;  // of constraint, by prediction, [B, C, H, W]
};

class Images {
 public:
  Images(const Array& hat, const Array& x) : hat_(hat), x_(x) {
    const Tensor tensor = hat.tensor();
    for (int d = 0; d < 4; ++d) sizes[d] = tensor.sizes[d];
  }

  std::int64_t at(std::int64_t b, std::int64_t c, std::int64_t row, std::int64_t column) const {
    return ((b * sizes[1] + c) * sizes[2] + row) * sizes[3] + column;
  }
  double hat(std::int64_t i) const { return hat_.get(i); }
  double x(std::int64_t i) const { return x_.get(i); }

  std::int64_t sizes[4];

 private:
  const Array &hat_, &x_;
};

// Adds `scale` times the derivative of a patch's value, returns the value.
inline double of_patch(const Images& images, const std::vector<std::int64_t>& numbers, ConstraintKind kind, double eps,
                       double scale, std::vector<double>& gradient) {
  const double n = static_cast<double>(numbers.size());
  double mean_hat = 0, mean = 0, var_hat = eps, var = eps, cov = eps;
  for (std::int64_t i : numbers) {
    mean_hat += images.hat(i) / n;
    mean += images.x(i) / n;
  }
  for (std::int64_t i : numbers) {
    const double rest_hat = images.hat(i) - mean_hat, rest = images.x(i) - mean;
    var_hat += rest_hat * rest_hat / n;
    var += rest * rest / n;
    cov += rest_hat * rest / n;
  }
  if (kind == ConstraintKind::kStructuralSimilarity) {
    // SSIM as the paper writes it, C1 = eps and C2 = 9 eps; above, eps was added to both variances and the covariance.
    const double of_means = mean_hat * mean_hat + mean * mean + eps, of_variances = var_hat + var + 7 * eps;
    const double luminance = (2 * mean_hat * mean + eps) / of_means, structure = (2 * cov + 7 * eps) / of_variances;
    for (std::int64_t i : numbers) {
      const double by_structure = 2 * ((images.x(i) - mean) - structure * (images.hat(i) - mean_hat)) / of_variances;
      const double by_luminance = 2 * (mean - mean_hat * luminance) / of_means;
      gradient[static_cast<std::size_t>(i)] += scale * (luminance * by_structure + structure * by_luminance) / n;
    }
    return luminance * structure;
  }
  const double deviation_hat = std::sqrt(var_hat), deviation = std::sqrt(var);
  const double correlation = cov / (deviation_hat * deviation);
  for (std::int64_t i : numbers) {
    const double rest_hat = images.hat(i) - mean_hat, rest = images.x(i) - mean;
    const double derivative = kind == ConstraintKind::kPatchCorrelation
                                  ? rest / (deviation_hat * deviation) - correlation * rest_hat / var_hat
                                  : (mean_hat - mean) + (deviation_hat - deviation) * rest_hat / deviation_hat;
    gradient[static_cast<std::size_t>(i)] += scale * derivative / n;
  }
  if (kind == ConstraintKind::kPatchCorrelation) return correlation;
  return 0.5 * (std::pow(mean_hat - mean, 2) + std::pow(deviation_hat - deviation, 2));
}

inline Answer windowed(const Constraint& constraint, const Array& hat, const Array& x, double kappa) {
  const Images images(hat, x);
  const geco::Patches& patches = constraint.patches;
  Answer answer;
  answer.gradient.resize(static_cast<std::size_t>(hat.elements()));
  const std::int64_t channels = images.sizes[1], groups = patches.per_channel ? channels : 1;
  const std::int64_t down = (images.sizes[2] - patches.size) / patches.stride + 1;
  const std::int64_t across = (images.sizes[3] - patches.size) / patches.stride + 1;
  const double weight = 1.0 / static_cast<double>(images.sizes[0] * groups * down * across);
  const bool similarity = geco::scale_rule(constraint.kind) == geco::ScaleRule::kOneMinusKappa;
  double mean = 0;
  std::vector<std::int64_t> numbers;
  for (std::int64_t b = 0; b < images.sizes[0]; ++b) {
    for (std::int64_t group = 0; group < groups; ++group) {
      for (std::int64_t i = 0; i < down * across; ++i) {
        numbers.clear();
        for (std::int64_t c = group; c < (patches.per_channel ? group + 1 : channels); ++c) {
          for (std::int64_t p = 0; p < patches.size * patches.size; ++p) {
            numbers.push_back(images.at(b, c, i / across * patches.stride + p / patches.size,
                                        i % across * patches.stride + p % patches.size));
          }
        }
        mean += weight *
                of_patch(images, numbers, constraint.kind, patches.eps, similarity ? -weight : weight, answer.gradient);
      }
    }
  }
  answer.constraint = similarity ? kappa - mean : mean - kappa * kappa;
  return answer;
}

}  // namespace oracle

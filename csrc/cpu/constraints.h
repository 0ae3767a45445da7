// What a step (step.cpp) is made of: the kernels of each kind of constraint, and numbers of any type.
#pragma once

#include <vector>

#include "contract.h"

namespace geco::cpu {

// The squared-error terms that read one input: they share its pass, their coefficients add up.
class SquaredErrorTerms {
 public:
  SquaredErrorTerms(const Call& call, int input);

  int channels() const { return channels_; }  // that are summed apart; 0: no term reads the input

  // Of the squared differences of each channel in the gradient.
  std::vector<double> coefficients() const;

  // Adds what the sums of squared differences mean for the constraint vector.
  void add(const std::vector<double>& sums, double* c_hat) const;

 private:
  const Call& call_;
  const Input& input_;
  std::vector<const Term*> terms_;
  int channels_ = 0;
};

// The constraint sums and gradients of one kind of term; `c_hat` holds the L averages. Images that windowed terms read
// have their squared errors measured in the same sweep, by `windows`.
void squared_errors(const Call& call, double* c_hat);
void windows(const Call& call, double* c_hat);
bool has_windows(const Call& call, int input);
void class_probability(const Call& call, const Term& term, double* c_hat);
void scalar(const Call& call, const Term& term, double* c_hat);

// The mean over a vector of one number per example, or a single number; its gradient is the same for each.
double mean_of_examples(const Tensor& values, const Tensor& gradient, double multiplier);

// Element reads and gradient writes for the small inputs (class scores, scalars, kl).
double read_element(const Tensor& tensor, std::int64_t offset);
void write_element(const Tensor& tensor, std::int64_t offset, double value);

}  // namespace geco::cpu

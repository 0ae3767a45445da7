// What a step (step.cpp) is made of: the kernels of each kind of constraint, and numbers of any type.
#pragma once

#include <algorithm>
#include <vector>

#include "contract.h"

namespace geco::cpu {

// The constraints that share a measure of one input: they share its pass, their coefficients add up.
class MeasuredConstraints {
 public:
  MeasuredConstraints(const LossCall& call, int input, const Measure& measure);

  const Measure& measure() const { return measure_; }
  int channels() const { return channels_; }  // that are summed apart; 0: no constraint has this measure

  // At least so many, where another measure of the input needs them.
  void split(int channels) { channels_ = std::max(channels_, channels); }

  // Of the direction of each channel in the gradient.
  std::vector<double> coefficients() const;

  // Adds what the sums of values mean for the constraint vector.
  void add(const std::vector<double>& sums, double* c_hat) const;

 private:
  const LossCall& call_;
  const Input& input_;
  Measure measure_;
  std::vector<const Constraint*> constraints_;
  int channels_ = 0;
};

// The constraint sums and gradients of one kind of constraint; `c_hat` holds the L averages. Images that windowed
// constraints read have their squared errors measured in the same sweep, by `patch_constraints`; it comes first, other
// measures add to its gradient.
void elementwise_constraints(const LossCall& call, double* c_hat);
void patch_constraints(const LossCall& call, double* c_hat);
bool has_patches(const LossCall& call, int input);
void scalar(const LossCall& call, const Constraint& constraint, double* c_hat);

// The mean over a vector of one number per example, or a single number; its gradient is the same for each.
double mean_of_examples(const Tensor& values, const Tensor& gradient, double multiplier);

// Element reads and gradient writes for the small inputs (scalars, kl).
double read_element(const Tensor& tensor, std::int64_t offset);
void write_element(const Tensor& tensor, std::int64_t offset, double value);

}  // namespace geco::cpu

// The squared-error terms that read one input: they share its pass, their coefficients add up.
#pragma once

#include <vector>

#include "call.h"

namespace geco::cpu {

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

}  // namespace geco::cpu

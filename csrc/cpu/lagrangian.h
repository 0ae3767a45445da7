// The whole operator on the CPU: constraint vector, gradients, moving average, multiplier update, loss.
#pragma once

#include "call.h"

namespace geco::cpu {

// Loss and gradients; with call.update the state moves too (training), without it is only read (evaluation).
void lagrangian(const Call& call);

// The two halves of a training step for several processes: sums[0..L) is the sum over the batch of the constraint
// vector, sums[L] the number of examples. A kl that is not finite makes every sum NaN, so that all processes skip.
void constraint_sums(const Call& call, double* sums);
void update_from_sums(const Call& call, const double* sums, int world_size, double* gradient_factor);

// The constraint sums and gradients of one kind of term; `c_hat` holds the L averages. Images that windowed terms read
// have their squared errors measured in the same sweep, by `windows`.
void squared_errors(const Call& call, double* c_hat);
void windows(const Call& call, double* c_hat);
bool has_windows(const Call& call, int input);
void class_probability(const Call& call, const Term& term, double* c_hat);

// Element reads and gradient writes for the small inputs (class scores, scalars, kl).
double read_element(const Tensor& tensor, std::int64_t offset);
void write_element(const Tensor& tensor, std::int64_t offset, double value);

// gradients[i] *= factor in place, or rounded into outputs[i]. A factor of one leaves a buffer as it is.
void scale_gradients(const Tensor* gradients, const Tensor* outputs, int count, double factor, int threads);

}  // namespace geco::cpu

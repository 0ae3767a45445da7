// The whole operator on the CPU: constraint vector, gradients, moving average, multiplier update, loss.
#pragma once

#include "contract.h"

namespace geco::cpu {

// Loss and gradients; with call.update the state moves too (training), without it is only read (evaluation).
void lagrangian(const LossCall& call);

// The two halves of a training step for several processes: sums[0..L) is the sum over the batch of the constraint
// vector, sums[L] the number of examples. A kl that is not finite makes every sum NaN, so that all processes skip.
void constraint_sums(const LossCall& call, double* sums);
void update_from_sums(const LossCall& call, const double* sums, int world_size, double* gradient_factor);

// gradients[i] *= factor in place, or rounded into outputs[i]. A factor of one leaves a buffer as it is.
void scale_gradients(const Tensor* gradients, const Tensor* outputs, int count, double factor, int threads);

}  // namespace geco::cpu

// The constraint vector of a criterion as Python describes it, and a call of the loss made of it.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "bindings/tensor.h"
#include "contract.h"

namespace geco::python {

// What a criterion computes, read once: its constraints in the order of their rows (_C.ConstraintVector).
class ConstraintVector {
 public:
  void add(ConstraintKind kind, int rows, std::vector<int> inputs, bool mean, ScaleRule scale, const Patches& patches) {
    if (scale != scale_rule(kind)) throw py::value_error("that is not the scale rule of this kind of constraint");
    if (inputs.empty()) throw py::value_error("a constraint without inputs");
    Constraint constraint;
    constraint.kind = kind;
    constraint.first_row = rows_;
    constraint.rows = rows;
    constraint.inputs = std::move(inputs);
    constraint.mean = mean;
    constraint.patches = patches;
    if (is_elementwise(kind)) constraint.eps = patches.eps;
    rows_ += rows;
    constraints_.push_back(std::move(constraint));
  }

  // Lists of tensors or None; `gradients` has one more than the others, that of kl.
  LossCall call(const py::list& predictions, const py::list& targets, const py::list& weights,
                const py::list& gradients, py::handle kl, py::handle state, std::int64_t batch,
                std::int64_t image_elements, py::handle loss) const {
    const std::size_t count = predictions.size();
    if (targets.size() != count || weights.size() != count || gradients.size() != count + 1) {
      throw py::value_error("lists of unequal lengths");
    }
    LossCall call;
    describe(call, doubles_of(state));
    call.inputs.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      call.inputs.push_back(
          {tensor_from(predictions[i]), tensor_from(targets[i]), tensor_from(gradients[i]), tensor_from(weights[i])});
      if (call.inputs[i].weights) fit_weights(call.inputs[i]);
    }
    for (const Constraint& constraint : constraints_) expect_inputs(constraint, call.inputs);
    call.kl = tensor_from(kl);
    call.kl_gradient = tensor_from(gradients[count]);
    call.batch = batch;
    call.image_elements = image_elements;
    if (!loss.is_none()) {
      call.loss = address_of(loss);
      call.loss_is_double = type_from(loss) == DataType::kFloat64;
    }
    return call;
  }

  // Whether its constraints can read these images.
  bool fits(const Tensor& images) const {
    for (const Constraint& constraint : constraints_) {
      if (constraint.rows > 1 && (images.rank < 2 || images.sizes[1] != constraint.rows)) return false;
      if (!is_windowed(constraint.kind)) continue;
      if (images.rank != 4 || std::min(images.sizes[2], images.sizes[3]) < constraint.patches.size) return false;
    }
    return true;
  }

  void describe(LossCall& call, double* state) const {
    call.constraints = &constraints_;
    call.state = State{state, rows_};
  }

 private:
  // Operators can be called by anybody, with any lists: kernels read no further than what is there.
  static void expect_inputs(const Constraint& constraint, const std::vector<Input>& inputs) {
    for (int i : constraint.inputs) {
      if (i < 0 || static_cast<std::size_t>(i) >= inputs.size()) throw py::value_error("a constraint lacks its input");
      if (is_scalar(constraint.kind) && inputs[static_cast<std::size_t>(i)].prediction.rank > 1) {
        throw py::value_error("a scalar constraint takes a number, or one for each example");
      }
      if (!is_elementwise(constraint.kind) && inputs[static_cast<std::size_t>(i)].weights) {
        throw py::value_error("weights for a constraint that does not compare number by number");
      }
    }
  }

  // Of the type that kernels compute in; one size for a whole dimension is a stride of zero.
  static void fit_weights(Input& input) {
    const Tensor &prediction = input.prediction, &target = input.target;
    Tensor& weights = input.weights;
    const bool wide = prediction.type == DataType::kFloat64 || target.type == DataType::kFloat64;
    if (weights.type != (wide ? DataType::kFloat64 : DataType::kFloat32)) {
      throw py::value_error("weights are float64 beside float64, else float32");
    }
    bool fits = weights.rank == prediction.rank;
    for (int d = 0; fits && d < weights.rank; ++d) {
      fits = weights.sizes[d] == prediction.sizes[d] || weights.sizes[d] == 1;
      if (weights.sizes[d] == 1) weights.strides[d] = 0;
    }
    if (!fits) throw py::value_error("weights have the shape of what they weigh, or a size of one");
  }

  std::vector<Constraint> constraints_;
  int rows_ = 0;
};

}  // namespace geco::python

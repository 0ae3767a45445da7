// The loss as Python calls it, the same for every device.
//
// A Device is made of what Python says last, and computes a call: `lagrangian`, `constraint_sums`, `update_from_sums`,
// `scale_gradients`. Its types say what that is: `Launch` (with scratch memory), `Update` and `Scale`.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "bindings/constraints.h"
#include "bindings/tensor.h"

namespace geco::python {

template <class...>
struct Arguments {};

template <class Device, class... Where>
void bind_lagrangian(py::module_& module, Arguments<Where...>) {
  module.def("lagrangian", [](const ConstraintVector& constraints, const py::list& predictions, const py::list& targets,
                              const py::list& weights, const py::list& gradients, py::handle kl, py::handle state,
                              std::int64_t batch, std::int64_t image_elements, py::handle loss,
                              const MultiplierUpdate* update, Where... where) {
    LossCall call = constraints.call(predictions, targets, weights, gradients, kl, state, batch, image_elements, loss);
    call.update = update;
    const Device device(where...);
    py::gil_scoped_release release;
    device.lagrangian(call);
  });
}

template <class Device, class... Where>
void bind_constraint_sums(py::module_& module, Arguments<Where...>) {
  module.def(
      "constraint_sums", [](const ConstraintVector& constraints, const py::list& predictions, const py::list& targets,
                            const py::list& weights, const py::list& gradients, py::handle kl, py::handle state,
                            std::int64_t batch, std::int64_t image_elements, py::handle sums, Where... where) {
        LossCall call =
            constraints.call(predictions, targets, weights, gradients, kl, state, batch, image_elements, py::none());
        double* const values = doubles_of(sums);
        const Device device(where...);
        py::gil_scoped_release release;
        device.constraint_sums(call, values);
      });
}

template <class Device, class... Where>
void bind_update_from_sums(py::module_& module, Arguments<Where...>) {
  module.def("update_from_sums", [](const ConstraintVector& constraints, const py::list& predictions,
                                    const py::list& targets, const py::list& weights, const py::list& gradients,
                                    py::handle kl, py::handle state, std::int64_t batch, std::int64_t image_elements,
                                    py::handle sums, int world_size, py::handle loss, py::handle gradient_factor,
                                    const MultiplierUpdate& update, Where... where) {
    LossCall call = constraints.call(predictions, targets, weights, gradients, kl, state, batch, image_elements, loss);
    call.update = &update;
    const double* const values = doubles_of(sums);
    double* const factor = doubles_of(gradient_factor);
    const Device device(where...);
    py::gil_scoped_release release;
    device.update_from_sums(call, values, world_size, factor);
  });
}

template <class Device, class... Where>
void bind_scale_gradients(py::module_& module, Arguments<Where...>) {
  module.def("scale_gradients",
             [](const py::list& gradients, const py::list& outputs, py::handle factor, Where... where) {
               const std::vector<Tensor> in = tensors_from(gradients), out = tensors_from(outputs);
               if (in.size() != out.size()) throw py::value_error("as many outputs as gradients are needed");
               const Tensor number = tensor_from(factor);
               const Device device(where...);
               py::gil_scoped_release release;
               device.scale_gradients(in.data(), out.data(), static_cast<int>(in.size()), number);
             });
}

template <class Device>
void bind_loss(py::module_& module) {
  bind_lagrangian<Device>(module, typename Device::Launch());
  bind_constraint_sums<Device>(module, typename Device::Launch());
  bind_update_from_sums<Device>(module, typename Device::Update());
  bind_scale_gradients<Device>(module, typename Device::Scale());
}

}  // namespace geco::python

// The kernels of the models as Python calls them, for the CPU and for CUDA devices alike.
#pragma once

#include <pybind11/pybind11.h>

#include "bindings/operands.h"

namespace geco::python {

template <class Call>
Call call_of(const Operands& operands) {
  Call call;
  static_cast<ModelCall&>(call) = operands.call();
  return call;
}

inline PerExample numbers_written(py::handle made) { return {address_of(made), 1}; }

template <class Device, class... Where>
py::tuple gaussian_rsample_kl(py::handle q_mean, py::handle q_log_std, py::handle p_mean, py::handle p_log_std,
                              py::handle noise, Where... where) {
  Operands operands(q_mean, 1, Device::is_here());
  auto call = call_of<GaussianCall>(operands);
  call.q_mean = operands.read(q_mean);
  call.q_log_std = operands.read(q_log_std);
  call.p_mean = operands.read(p_mean);
  call.p_log_std = operands.read(p_log_std);
  call.noise = operands.read(noise);
  const py::object z = operands.empty_like(q_mean), kl = operands.empty_numbers();
  call.z = operands.written(z);
  call.kl = numbers_written(kl);
  Device::compute(call, where...);
  return py::make_tuple(z, kl);
}

template <class Device, class... Where>
py::list gaussian_rsample_kl_backward(py::handle grad_z, py::handle grad_kl, py::handle q_mean, py::handle q_log_std,
                                      py::handle p_mean, py::handle p_log_std, py::handle noise, Where... where) {
  Operands operands(q_mean, 1, Device::is_here());
  auto call = call_of<GaussianBackwardCall>(operands);
  call.grad_z = operands.read(grad_z);
  call.grad_kl = operands.read_numbers(grad_kl);
  call.q_mean = operands.read(q_mean);
  call.q_log_std = operands.read(q_log_std);
  call.p_mean = operands.read(p_mean);
  call.p_log_std = operands.read(p_log_std);
  call.noise = operands.read(noise);
  py::list made;
  const auto output = [&] {
    made.append(operands.empty_like(q_mean));
    return operands.written(made[made.size() - 1]);
  };
  call.of_q_mean = output();
  call.of_q_log_std = output();
  if (!p_mean.is_none()) {
    call.of_p_mean = output();
    call.of_p_log_std = output();
  }
  Device::compute(call, where...);
  return made;
}

template <class Device, class... Where>
py::tuple lstm_gates(py::handle gates, py::handle cell, Where... where) {
  Operands operands(gates, 4, Device::is_here());
  auto call = call_of<GatesCall>(operands);
  call.gates = operands.read(gates, 4);
  call.cell = operands.read(cell);
  const py::object hidden = operands.empty_like(cell), new_cell = operands.empty_like(cell);
  call.hidden = operands.written(hidden);
  call.new_cell = operands.written(new_cell);
  Device::compute(call, where...);
  return py::make_tuple(hidden, new_cell);
}

template <class Device, class... Where>
py::tuple lstm_gates_backward(py::handle grad_hidden, py::handle grad_cell, py::handle gates, py::handle cell,
                              Where... where) {
  Operands operands(gates, 4, Device::is_here());
  auto call = call_of<GatesBackwardCall>(operands);
  call.grad_hidden = operands.read(grad_hidden);
  call.grad_cell = operands.read(grad_cell);
  call.gates = operands.read(gates, 4);
  call.cell = operands.read(cell);
  const py::object of_gates = operands.empty_like(gates), of_cell = operands.empty_like(cell);
  call.of_gates = operands.written(of_gates, 4);
  call.of_cell = operands.written(of_cell);
  Device::compute(call, where...);
  return py::make_tuple(of_gates, of_cell);
}

template <class Device, class... Where>
py::tuple affine_coupling(py::handle x, py::handle log_scale, py::handle shift, bool inverse, Where... where) {
  Operands operands(x, 1, Device::is_here());
  auto call = call_of<CouplingCall>(operands);
  call.inverse = inverse;
  call.x = operands.read(x);
  call.log_scale = operands.read(log_scale);
  call.shift = operands.read(shift);
  const py::object y = operands.empty_like(x), log_det = operands.empty_numbers();
  call.y = operands.written(y);
  call.log_det = numbers_written(log_det);
  Device::compute(call, where...);
  return py::make_tuple(y, log_det);
}

template <class Device, class... Where>
py::list affine_coupling_backward(py::handle grad_y, py::handle grad_log_det, py::handle value, py::handle log_scale,
                                  bool inverse, Where... where) {
  Operands operands(value, 1, Device::is_here());
  auto call = call_of<CouplingBackwardCall>(operands);
  call.inverse = inverse;
  call.grad_y = operands.read(grad_y);
  call.grad_log_det = operands.read_numbers(grad_log_det);
  call.value = operands.read(value);
  call.log_scale = operands.read(log_scale);
  const py::object of_x = operands.empty_like(value), of_log_scale = operands.empty_like(value);
  call.of_x = operands.written(of_x);
  call.of_log_scale = operands.written(of_log_scale);
  py::list gradients;
  gradients.append(of_x);
  gradients.append(of_log_scale);
  if (inverse) {
    gradients.append(operands.empty_like(value));
    call.of_shift = operands.written(gradients[2]);
  }
  Device::compute(call, where...);
  return gradients;
}

// Device::is_here() is the name of the attribute that is true of tensors on their device, Device::compute(call,
// where...) computes a call; `where` is what Python says last.
template <class Device, class... Where>
void bind_models(py::module_& module) {
  module.def("gaussian_rsample_kl", &gaussian_rsample_kl<Device, Where...>);
  module.def("gaussian_rsample_kl_backward", &gaussian_rsample_kl_backward<Device, Where...>);
  module.def("lstm_gates", &lstm_gates<Device, Where...>);
  module.def("lstm_gates_backward", &lstm_gates_backward<Device, Where...>);
  module.def("affine_coupling", &affine_coupling<Device, Where...>);
  module.def("affine_coupling_backward", &affine_coupling_backward<Device, Where...>);
}

}  // namespace geco::python

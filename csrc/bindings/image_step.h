// One call for the usual step of a criterion, from the tensors to the loss and its gradients; and one for its backward.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdlib>
#include <initializer_list>
#include <stdexcept>
#include <utility>

#include "bindings/constraints.h"
#include "bindings/loss.h"
#include "bindings/quick.h"
#include "bindings/tensor.h"

namespace geco::python {

// As geco_ext.backends says; Python's environment is that of the process, and slow to ask.
inline bool backend_is_asked_for() { return std::getenv("GECO_EXT_BACKEND") != nullptr; }

// A gradient as large as its tensor. Half types get float32, so that backward rounds once, after scaling.
inline py::object new_gradient(py::handle tensor, const Tensor& described, Tensor& gradient) {
  static const DataType single = DataType::kFloat32;
  const bool rounds = described.type != DataType::kFloat32 && described.type != DataType::kFloat64;
  const py::object made = empty_like_plain(tensor, rounds ? &single : nullptr);
  if (is_contiguous(described)) {  // then so is what is made like it, and need not be asked
    gradient = described;
    gradient.data = address_of(made);
    if (rounds) gradient.type = DataType::kFloat32;
  } else {
    gradient = tensor_from(made);
  }
  return made;
}

inline py::object new_loss(py::handle state, bool is_double) {
  static PyObject* const new_empty = PyUnicode_InternFromString("new_empty");
  static PyObject* const dtype_keyword = PyTuple_Pack(1, PyUnicode_InternFromString("dtype"));
  static PyObject* const no_sizes = PyTuple_New(0);
  const DataType type = is_double ? DataType::kFloat64 : DataType::kFloat32;
  PyObject* const arguments[] = {state.ptr(), no_sizes, torch().type(type).ptr()};
  return owned(PyObject_VectorcallMethod(new_empty, arguments, 2, dtype_keyword));
}

struct ToRead {
  py::handle object;
  Tensor* tensor;
};

// Describes tensors that can be read as they lie: of no subclass, with memory of their own where the state is (which is
// described too), and not negated. False where one is something else.
inline bool read_beside(py::handle state, Tensor& of_state, std::initializer_list<ToRead> wanted) {
  static PyObject* const device_name = PyUnicode_InternFromString("device");
  DeviceNumber device, here;
  const bool at_once = describe(state, of_state, device);
  if (!is_plain(state)) return false;
  if (!at_once) of_state = tensor_from(state);
  for (const ToRead& read : wanted) {
    if (!is_plain(read.object)) return false;
    if (at_once && describe(read.object, *read.tensor, here)) {
      if (!(here == device)) return false;
    } else {
      const py::object known = owned(PyObject_GetAttr(state.ptr(), device_name));
      const py::object found = owned(PyObject_GetAttr(read.object.ptr(), device_name));
      if (PyObject_RichCompareBool(found.ptr(), known.ptr(), Py_EQ) != 1) return false;
      try {
        *read.tensor = tensor_from(read.object);
      } catch (const py::error_already_set&) {  // no storage: sparse, or of a torch.func transform
        return false;
      }
    }
    if (is_negated(read.object)) return false;
    if (read.tensor->data == nullptr) return false;  // empty, or a zero tensor, which has no memory
  }
  return true;
}

// A call of a criterion that looks at the images alone, from the tensors to the loss and its gradients: for small
// images the Python between a check and a kernel costs more than the kernel. Whatever is not the usual case (tensors on
// several devices, a target that wants a gradient, bad input) returns None and takes the way of all calls.
template <class Device>
py::object usual_image_step(const ConstraintVector& constraints, const MultiplierUpdate* update, py::handle x_hat,
                            py::handle x, py::handle kl, py::handle state, bool grad_enabled, const Device& device) {
  static PyObject* const requires_grad = PyUnicode_InternFromString("requires_grad");
  if (backend_is_asked_for()) return py::none();
  LossCall call;
  Input image;
  Tensor of_state;
  if (!read_beside(state, of_state, {{x_hat, &image.prediction}, {x, &image.target}, {kl, &call.kl}}))
    return py::none();
  const Tensor& prediction = image.prediction;
  for (DataType type : {prediction.type, image.target.type, call.kl.type}) {
    if (type == DataType::kInt64) return py::none();
  }
  if (prediction.rank < 1 || prediction.rank != image.target.rank || prediction.elements() == 0) return py::none();
  for (int d = 0; d < prediction.rank; ++d) {
    if (prediction.sizes[d] != image.target.sizes[d]) return py::none();
  }
  if (!constraints.fits(prediction)) return py::none();
  call.batch = prediction.sizes[0];
  if (call.kl.rank > 1 || (call.kl.rank == 1 && call.kl.sizes[0] != call.batch)) return py::none();
  if (grad_enabled && attribute_is_true(x, requires_grad)) return py::none();

  bool rounds = false;
  const auto gradient_of = [&](py::handle tensor, const Tensor& described, Tensor& gradient) {
    if (!grad_enabled || !attribute_is_true(tensor, requires_grad)) return py::object(py::none());
    const py::object made = new_gradient(tensor, described, gradient);
    rounds = rounds || gradient.type != described.type;
    return made;
  };
  const py::object image_gradient = gradient_of(x_hat, prediction, image.gradient);
  const py::object kl_gradient = gradient_of(kl, call.kl, call.kl_gradient);
  call.loss_is_double = prediction.type == DataType::kFloat64;
  const py::object loss = new_loss(state, call.loss_is_double);

  call.inputs.push_back(image);
  call.loss = address_of(loss);
  call.image_elements = prediction.elements() / call.batch;
  call.update = update;
  constraints.describe(call, static_cast<double*>(of_state.data));
  {
    py::gil_scoped_release release;
    device.lagrangian(call);
  }
  return py::make_tuple(loss, kl_gradient, image_gradient, rounds);
}

template <class Device>
py::object image_step(const ConstraintVector& constraints, const MultiplierUpdate* update, py::handle x_hat,
                      py::handle x, py::handle kl, py::handle state, bool grad_enabled, const Device& device) {
  try {
    return usual_image_step(constraints, update, x_hat, x, kl, state, grad_enabled, device);
  } catch (const py::builtin_exception&) {  // a type or a rank that tensor_from does not know; nothing has run yet
    return py::none();
  } catch (const std::invalid_argument&) {  // more than a kernel takes, as its plan found out; nor has it here
    return py::none();
  }
}

// The gradients of such a call times the incoming one, in place; false, and nothing done, where a backend is asked for,
// or where the incoming gradient is not a plain number beside them.
template <class Device>
bool image_step_backward(py::handle kl_gradient, py::handle image_gradient, py::handle incoming, const Device& device) {
  if (backend_is_asked_for()) return false;
  // The gradients are dense, so that the order of their elements does not matter.
  Tensor gradients[2], factor;
  const bool one = kl_gradient.is_none() || image_gradient.is_none();
  if (!read_beside(image_gradient.is_none() ? kl_gradient : image_gradient, gradients[0], {{incoming, &factor}})) {
    return false;
  }
  if (!one) gradients[1] = tensor_from(kl_gradient);
  if (factor.elements() != 1) return false;
  py::gil_scoped_release release;
  device.scale_gradients(gradients, gradients, one ? 1 : 2, factor);
  return true;
}

template <class Device, class... Where, std::size_t... I>
py::object call_image_step(PyObject* const* arguments, std::index_sequence<I...>) {
  return image_step(py::cast<const ConstraintVector&>(py::handle(arguments[0])),
                    py::cast<const MultiplierUpdate*>(py::handle(arguments[1])), arguments[2], arguments[3],
                    arguments[4], arguments[5], arguments[6] == Py_True,
                    Device(from_python<Where>(arguments[7 + I])...));
}

// Constraints, update, x_hat, x, kl, state, grad_enabled, where.
template <class Device, class... Where>
void bind_image_step(py::module_& module, Arguments<Where...>) {
  static PyMethodDef definition;
  define_quick(module, definition, "image_step", [](PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    return guarded([&] {
      expect_arguments(count, 7 + sizeof...(Where));
      return call_image_step<Device, Where...>(arguments, std::index_sequence_for<Where...>());
    });
  });
}

template <class Device, class... Where, std::size_t... I>
bool call_image_step_backward(PyObject* const* arguments, std::index_sequence<I...>) {
  return image_step_backward(arguments[0], arguments[1], arguments[2], Device(from_python<Where>(arguments[3 + I])...));
}

// Gradient of kl, gradient of x_hat, incoming gradient, where.
template <class Device, class... Where>
void bind_image_step_backward(py::module_& module, Arguments<Where...>) {
  static PyMethodDef definition;
  define_quick(module, definition, "image_step_backward", [](PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    return guarded([&] {
      expect_arguments(count, 3 + sizeof...(Where));
      return py::bool_(call_image_step_backward<Device, Where...>(arguments, std::index_sequence_for<Where...>()));
    });
  });
}

template <class Device>
void bind_image_step(py::module_& module) {
  bind_image_step<Device>(module, typename Device::Launch());
  bind_image_step_backward<Device>(module, typename Device::Scale());
}

}  // namespace geco::python

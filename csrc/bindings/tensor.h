// Tensors as Python has them. A tensor is asked for its address, type, sizes and strides through the methods every
// PyTorch release has; nothing here depends on PyTorch's own C++.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "contract.h"

namespace geco::python {

namespace py = pybind11;

// What is needed of PyTorch, handed over by Python once the extension is loaded.
struct Torch {
  std::vector<py::object> types;  // torch.float32, ..., in the order of DataType
  py::object empty_like, contiguous_format, channels_last;

  const py::object& type(DataType which) const { return types[static_cast<std::size_t>(which)]; }
};

Torch& torch();

// A new reference, or the error that Python has set.
py::object owned(PyObject* object);

std::int64_t integer(PyObject* object);
bool attribute_is_true(py::handle object, PyObject* name);

DataType type_from(py::handle tensor);
void* address_of(py::handle tensor);
double* doubles_of(py::handle tensor);

// A torch tensor or None.
Tensor tensor_from(py::handle object);

// A dense tensor as one run of numbers, whatever its shape.
Tensor numbers_from(py::handle dense);

bool is_contiguous(const Tensor& tensor);
std::vector<Tensor> tensors_from(const py::list& list);

}  // namespace geco::python

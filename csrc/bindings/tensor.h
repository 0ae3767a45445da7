// Tensors as Python has them. A tensor is asked for its address, type, sizes and strides through DLPack's table of C
// functions where PyTorch has one (2.11 and newer), else through the methods every release has, several times as slow;
// nothing here depends on PyTorch's own C++.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "contract.h"

namespace geco::python {

namespace py = pybind11;

// Where a tensor is, as DLPack numbers devices.
struct DeviceNumber {
  std::int32_t type = 0, index = 0;

  bool operator==(const DeviceNumber& other) const { return type == other.type && index == other.index; }
};

struct DlpackExchange;

// The table of `torch.Tensor.__dlpack_c_exchange_api__`, or null where there is none that is understood.
const DlpackExchange* exchange_from(py::handle capsule);

// What is needed of PyTorch, handed over by Python once the extension is loaded.
struct Torch {
  std::vector<py::object> types;  // torch.float32, ..., in the order of DataType
  py::object empty_like, contiguous_format, channels_last;
  std::vector<py::object> plain_classes;  // torch.Tensor, torch.nn.Parameter: no subclasses, whose memory is their own
  const DlpackExchange* exchange = nullptr;
  // PyTorch's own empty_like, and whether it would fill what it makes; `empty_like` above asks that itself, in Python.
  py::object quick_empty_like, fills_new_memory;

  const py::object& type(DataType which) const { return types[static_cast<std::size_t>(which)]; }
};

Torch& torch();

// A new reference, or the error that Python has set.
py::object owned(PyObject* object);

std::int64_t integer(PyObject* object);
bool attribute_is_true(py::handle object, PyObject* name);

// As `empty_like` of a plain tensor that no mode looks at, in a fraction of the time; the type's number may be left
// out.
py::object empty_like_plain(py::handle tensor, const DataType* type = nullptr);

// Whether it is a tensor of no subclass.
bool is_plain(py::handle object);

// All about a plain tensor, asked for at once. False, and nothing is said, where PyTorch has no such table, or where
// the tensor is none that it describes or that this package knows: then the functions below find out, and say why.
bool describe(py::handle tensor, Tensor& described, DeviceNumber& device);

// Whether all rows lie at these addresses: a dict of tensors, the names of those that are asked for, integers.
bool lie_at(const py::dict& rows, const py::tuple& names, const py::tuple& addresses);

// Whether its sign is in a flag that an address does not show (a view of a complex tensor).
bool is_negated(py::handle tensor);

DataType type_from(py::handle tensor);
void* address_of(py::handle tensor);
double* doubles_of(py::handle tensor);

// A torch tensor or None.
Tensor tensor_from(py::handle object);

bool is_contiguous(const Tensor& tensor);
std::vector<Tensor> tensors_from(const py::list& list);

}  // namespace geco::python

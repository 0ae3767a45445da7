#include "bindings/tensor.h"

#include <string>

namespace geco::python {

Torch& torch() {
  static auto* found = new Torch;  // never destroyed: the interpreter may be gone by then
  return *found;
}

py::object owned(PyObject* object) {
  if (object == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(object);
}

std::int64_t integer(PyObject* object) {
  const long long value = PyLong_AsLongLong(object);
  if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
  return value;
}

bool attribute_is_true(py::handle object, PyObject* name) {
  return owned(PyObject_GetAttr(object.ptr(), name)).ptr() == Py_True;
}

DataType type_from(py::handle tensor) {
  static PyObject* const name = PyUnicode_InternFromString("dtype");
  const py::object type = owned(PyObject_GetAttr(tensor.ptr(), name));
  const std::vector<py::object>& types = torch().types;
  for (std::size_t i = 0; i < types.size(); ++i) {
    if (types[i].is(type)) return static_cast<DataType>(i);
  }
  throw py::type_error("tensors of " + std::string(py::str(type)) + " are not supported");
}

void* address_of(py::handle tensor) {
  static PyObject* const name = PyUnicode_InternFromString("data_ptr");
  return PyLong_AsVoidPtr(owned(PyObject_CallMethodNoArgs(tensor.ptr(), name)).ptr());
}

double* doubles_of(py::handle tensor) { return static_cast<double*>(address_of(tensor)); }

Tensor tensor_from(py::handle object) {
  static PyObject* const shape_name = PyUnicode_InternFromString("shape");
  static PyObject* const stride_name = PyUnicode_InternFromString("stride");
  Tensor tensor;
  if (object.is_none()) return tensor;
  tensor.data = address_of(object);
  tensor.type = type_from(object);
  const py::object sizes = owned(PyObject_GetAttr(object.ptr(), shape_name));
  const py::object strides = owned(PyObject_CallMethodNoArgs(object.ptr(), stride_name));
  tensor.rank = static_cast<int>(PyTuple_GET_SIZE(sizes.ptr()));
  if (tensor.rank > kMaxRank) {
    throw py::value_error("tensors of more than " + std::to_string(kMaxRank) + " dimensions are not supported");
  }
  for (int d = 0; d < tensor.rank; ++d) {
    tensor.sizes[d] = integer(PyTuple_GET_ITEM(sizes.ptr(), d));
    tensor.strides[d] = integer(PyTuple_GET_ITEM(strides.ptr(), d));
  }
  return tensor;
}

Tensor numbers_from(py::handle dense) {
  static PyObject* const numel = PyUnicode_InternFromString("numel");
  Tensor tensor;
  tensor.data = address_of(dense);
  tensor.type = type_from(dense);
  tensor.rank = 1;
  tensor.sizes[0] = integer(owned(PyObject_CallMethodNoArgs(dense.ptr(), numel)).ptr());
  tensor.strides[0] = 1;
  return tensor;
}

bool is_contiguous(const Tensor& tensor) {
  std::int64_t stride = 1;
  for (int d = tensor.rank - 1; d >= 0; --d) {
    if (tensor.strides[d] != stride) return false;
    stride *= tensor.sizes[d];
  }
  return true;
}

std::vector<Tensor> tensors_from(const py::list& list) {
  std::vector<Tensor> tensors;
  tensors.reserve(list.size());
  for (py::handle item : list) tensors.push_back(tensor_from(item));
  return tensors;
}

}  // namespace geco::python

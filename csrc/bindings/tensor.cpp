#include "bindings/tensor.h"

#include <string>

namespace geco::python {

// DLPack's stable layout (dlpack.h, major version 1): what is used of it.
struct DlpackTensor {
  void* data;
  DeviceNumber device;
  std::int32_t rank;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  std::int64_t *sizes, *strides;
  std::uint64_t byte_offset;
};

struct DlpackExchange {
  std::uint32_t major, minor;
  void* previous;
  void *new_managed, *managed_from_object, *object_from_managed;
  int (*describe)(void* object, DlpackTensor* described);  // the tensor keeps what it points to; may be null
  void* current_stream;
};

const DlpackExchange* exchange_from(py::handle capsule) {
  constexpr const char* kName = "dlpack_exchange_api";
  if (!PyCapsule_IsValid(capsule.ptr(), kName)) return nullptr;
  const auto* exchange = static_cast<const DlpackExchange*>(PyCapsule_GetPointer(capsule.ptr(), kName));
  return exchange->major == 1 && exchange->describe != nullptr ? exchange : nullptr;
}

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

bool is_plain(py::handle object) {
  for (const py::object& plain : torch().plain_classes) {
    if (reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())) == plain.ptr()) return true;
  }
  return false;
}

bool describe(py::handle tensor, Tensor& described, DeviceNumber& device) {
  const DlpackExchange* const exchange = torch().exchange;
  if (exchange == nullptr || !is_plain(tensor)) return false;
  DlpackTensor found;
  if (exchange->describe(tensor.ptr(), &found) != 0) {
    PyErr_Clear();
    return false;
  }
  enum { kInt = 0, kFloat = 2, kBFloat = 4 };
  const int code = found.code, bits = found.bits;
  if (found.rank > kMaxRank || found.lanes != 1) return false;
  if (code == kFloat && bits == 32) {
    described.type = DataType::kFloat32;
  } else if (code == kFloat && bits == 64) {
    described.type = DataType::kFloat64;
  } else if (code == kFloat && bits == 16) {
    described.type = DataType::kFloat16;
  } else if (code == kBFloat && bits == 16) {
    described.type = DataType::kBFloat16;
  } else if (code == kInt && bits == 64) {
    described.type = DataType::kInt64;
  } else {
    return false;
  }
  described.data = static_cast<char*>(found.data) + found.byte_offset;
  described.rank = found.rank;
  for (int d = 0; d < found.rank; ++d) {
    described.sizes[d] = found.sizes[d];
    described.strides[d] = found.strides[d];
  }
  device = found.device;
  return true;
}

py::object empty_like_plain(py::handle tensor, const DataType* type) {
  static PyObject* const dtype_keyword = PyTuple_Pack(1, PyUnicode_InternFromString("dtype"));
  const bool fills = owned(PyObject_CallNoArgs(torch().fills_new_memory.ptr())).ptr() == Py_True;
  PyObject* const make = fills ? torch().empty_like.ptr() : torch().quick_empty_like.ptr();
  if (type == nullptr) return owned(PyObject_CallOneArg(make, tensor.ptr()));
  PyObject* const arguments[] = {tensor.ptr(), torch().type(*type).ptr()};
  return owned(PyObject_Vectorcall(make, arguments, 1, dtype_keyword));
}

bool lie_at(const py::dict& rows, const py::tuple& names, const py::tuple& addresses) {
  const std::size_t count = names.size();
  if (addresses.size() != count) return false;
  for (std::size_t i = 0; i < count; ++i) {
    const py::handle row = PyDict_GetItemWithError(rows.ptr(), names[i].ptr());  // borrowed
    if (!row || row.is_none()) return false;
    try {
      if (address_of(row) != PyLong_AsVoidPtr(addresses[i].ptr())) return false;
    } catch (const py::error_already_set&) {  // a tensor without storage
      return false;
    }
  }
  return true;
}

bool is_negated(py::handle tensor) {
  static PyObject* const is_neg = PyUnicode_InternFromString("is_neg");
  return owned(PyObject_CallMethodNoArgs(tensor.ptr(), is_neg)).ptr() == Py_True;
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
  const DlpackExchange* const exchange = torch().exchange;
  DlpackTensor found;
  if (exchange != nullptr && is_plain(tensor)) {
    if (exchange->describe(tensor.ptr(), &found) == 0) return static_cast<char*>(found.data) + found.byte_offset;
    PyErr_Clear();
  }
  static PyObject* const name = PyUnicode_InternFromString("data_ptr");
  return PyLong_AsVoidPtr(owned(PyObject_CallMethodNoArgs(tensor.ptr(), name)).ptr());
}

double* doubles_of(py::handle tensor) { return static_cast<double*>(address_of(tensor)); }

Tensor tensor_from(py::handle object) {
  static PyObject* const shape_name = PyUnicode_InternFromString("shape");
  static PyObject* const stride_name = PyUnicode_InternFromString("stride");
  Tensor tensor;
  DeviceNumber device;
  if (object.is_none() || describe(object, tensor, device)) return tensor;
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

#include "bindings/operands.h"

#include <string>

namespace geco::python {
namespace {

PyObject* interned(const char* name) { return PyUnicode_InternFromString(name); }

PyObject* memory_format_keyword() {
  static PyObject* const names = PyTuple_Pack(1, interned("memory_format"));
  return names;
}

// Whether the dimensions after the first lie in order and without gaps.
bool is_dense(int rank, const std::int64_t* sizes, const std::int64_t* strides) {
  std::int64_t expected = 1;
  for (int d = rank - 1; d > 0; --d) {
    if (sizes[d] != 1 && strides[d] != expected) return false;
    expected *= sizes[d];
  }
  return true;
}

// Distance of neighbouring pixels; the stride of a side of one pixel is arbitrary.
std::int64_t pixel_stride(const std::int64_t* sizes, const std::int64_t* strides) {
  return sizes[3] > 1 ? strides[3] : sizes[2] > 1 ? strides[2] : sizes[1];
}

bool lies_pixel_by_pixel(const std::int64_t* sizes, const std::int64_t* strides) {
  const bool channels_dense = sizes[1] == 1 || strides[1] == 1;
  const bool pixels_apart = pixel_stride(sizes, strides) >= sizes[1];
  const bool rows_follow = sizes[2] == 1 || sizes[3] == 1 || strides[2] == sizes[3] * strides[3];
  return channels_dense && pixels_apart && rows_follow;
}

}  // namespace

Operands::Operands(py::handle leader, std::int64_t parts, PyObject* is_here)
    : is_here_(is_here), leader_(py::reinterpret_borrow<py::object>(leader)) {
  call_.type = type_from(leader);
  if (call_.type == DataType::kInt64) throw py::type_error("tensors of torch.int64 are not supported");
  const View view = view_of(leader);
  rank_ = view.rank;
  if (rank_ == 0) throw py::value_error("got a number, expected a tensor [B, ...]");
  for (int d = 0; d < rank_; ++d) sizes_[d] = view.sizes[d];
  if (parts > 1) {
    if (rank_ < 2 || sizes_[1] % parts != 0) throw py::value_error("dimension 1 cannot be divided into equal parts");
    sizes_[1] /= parts;
  }
  channels_last_ =
      rank_ == 4 && !is_dense(rank_, view.sizes, view.strides) && lies_pixel_by_pixel(view.sizes, view.strides);
  call_.extent = {sizes_[0], 1, 1};
  if (channels_last_) {
    call_.extent.rows = sizes_[2] * sizes_[3];
    call_.extent.inner = sizes_[1];
  } else {
    for (int d = 1; d < rank_; ++d) call_.extent.inner *= sizes_[d];
  }
}

Strided Operands::read(py::handle tensor, std::int64_t parts) {
  static PyObject* const is_neg = interned("is_neg");
  static PyObject* const resolve_neg = interned("resolve_neg");
  static PyObject* const contiguous = interned("contiguous");
  if (tensor.is_none()) return {};
  if (!attribute_is_true(tensor, is_here_)) throw py::value_error("tensors of a call on several devices");
  if (type_from(tensor) != call_.type) throw py::type_error("tensors of a call with several types");
  // A negated view (of a complex tensor) has its sign in a flag that an address does not show.
  if (owned(PyObject_CallMethodNoArgs(tensor.ptr(), is_neg)).ptr() == Py_True) {
    copies_.push_back(owned(PyObject_CallMethodNoArgs(tensor.ptr(), resolve_neg)));
    tensor = copies_.back();
  }
  View view = view_of(tensor);
  expect_shape(view, parts);
  if (!lies_in_order(view)) {
    const py::object& format = channels_last_ ? torch().channels_last : torch().contiguous_format;
    PyObject* const arguments[] = {tensor.ptr(), format.ptr()};
    copies_.push_back(owned(PyObject_VectorcallMethod(contiguous, arguments, 1, memory_format_keyword())));
    tensor = copies_.back();
    view = view_of(tensor);
  }
  return {address_of(tensor), view.strides[0], channels_last_ ? pixel_stride(view.sizes, view.strides) : 0};
}

PerExample Operands::read_numbers(py::handle tensor) {
  static PyObject* const to = interned("to");
  if (tensor.is_none()) return {};
  if (!attribute_is_true(tensor, is_here_)) throw py::value_error("tensors of a call on several devices");
  const DataType expected = call_.type == DataType::kFloat64 ? DataType::kFloat64 : DataType::kFloat32;
  if (type_from(tensor) != expected) {
    PyObject* const type = torch().types[static_cast<std::size_t>(expected)].ptr();
    copies_.push_back(owned(PyObject_CallMethodOneArg(tensor.ptr(), to, type)));
    tensor = copies_.back();
  }
  const View view = view_of(tensor);
  if (view.rank != 1 || view.sizes[0] != sizes_[0]) throw py::value_error("expected a number for each example, [B]");
  return {address_of(tensor), view.strides[0]};
}

py::object Operands::empty_like(py::handle tensor) const {
  const py::object& format = channels_last_ ? torch().channels_last : torch().contiguous_format;
  PyObject* const arguments[] = {tensor.ptr(), format.ptr()};
  return owned(PyObject_Vectorcall(torch().empty_like.ptr(), arguments, 1, memory_format_keyword()));
}

py::object Operands::empty_numbers() const {
  static PyObject* const new_empty = interned("new_empty");
  static PyObject* const dtype_keyword = PyTuple_Pack(1, interned("dtype"));
  const bool is_double = call_.type == DataType::kFloat64;
  const py::object size = owned(PyLong_FromLongLong(sizes_[0]));
  PyObject* const arguments[] = {leader_.ptr(), size.ptr(), torch().types[is_double ? 1 : 0].ptr()};
  return owned(PyObject_VectorcallMethod(new_empty, arguments, 2, dtype_keyword));
}

Strided Operands::written(py::handle made, std::int64_t parts) const {
  const std::int64_t row = call_.extent.inner * parts;
  return {address_of(made), call_.extent.rows * row, channels_last_ ? row : 0};
}

Operands::View Operands::view_of(py::handle tensor) const {
  static PyObject* const shape_name = interned("shape");
  static PyObject* const stride_name = interned("stride");
  const py::object sizes = owned(PyObject_GetAttr(tensor.ptr(), shape_name));
  const py::object strides = owned(PyObject_CallMethodNoArgs(tensor.ptr(), stride_name));
  View view;
  view.rank = static_cast<int>(PyTuple_GET_SIZE(sizes.ptr()));
  if (view.rank > kMostDimensions) {
    throw py::value_error("tensors of more than " + std::to_string(kMostDimensions) + " dimensions are not supported");
  }
  for (int d = 0; d < view.rank; ++d) {
    view.sizes[d] = integer(PyTuple_GET_ITEM(sizes.ptr(), d));
    view.strides[d] = integer(PyTuple_GET_ITEM(strides.ptr(), d));
  }
  return view;
}

void Operands::expect_shape(const View& view, std::int64_t parts) const {
  bool same = view.rank == rank_;
  for (int d = 0; same && d < rank_; ++d) same = view.sizes[d] == sizes_[d] * (d == 1 ? parts : 1);
  if (!same) throw py::value_error("shapes of the tensors of a call do not belong together");
}

bool Operands::lies_in_order(const View& view) const {
  return channels_last_ ? lies_pixel_by_pixel(view.sizes, view.strides) : is_dense(view.rank, view.sizes, view.strides);
}

}  // namespace geco::python

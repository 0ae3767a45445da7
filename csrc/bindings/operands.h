// The tensors of a call of a model kernel, from Python: in an order that kernels walk over, checked, and made.
//
// As geco_ext/model_kernels/layout.py, but in a fraction of the time: a recurrent model makes dozens of calls a step.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "bindings/tensor.h"
#include "contract.h"

namespace geco::python {

constexpr int kMostDimensions = 64;  // that PyTorch has

class Operands {
 public:
  // The leader decides on type and order of all tensors. It has `parts` times the channels (dimension 1) that the
  // extent of the call has. `is_here`: name of the attribute that is true on the device of the kernels, as "is_cpu".
  Operands(py::handle leader, std::int64_t parts, PyObject* is_here);

  const ModelCall& call() const { return call_; }

  // A tensor, or a copy of it where it cannot be read as it lies, or None; the copy lives as long as this.
  Strided read(py::handle tensor, std::int64_t parts = 1);

  // A number for each example, or None.
  PerExample read_numbers(py::handle tensor);

  // New tensors; the caller keeps them.
  py::object empty_like(py::handle tensor) const;
  py::object empty_numbers() const;
  Strided written(py::handle made, std::int64_t parts = 1) const;

 private:
  struct View {
    int rank = 0;
    std::int64_t sizes[kMostDimensions], strides[kMostDimensions];
  };

  View view_of(py::handle tensor) const;
  void expect_shape(const View& view, std::int64_t parts) const;
  bool lies_in_order(const View& view) const;

  ModelCall call_;
  PyObject* is_here_;
  bool channels_last_ = false;
  int rank_ = 0;
  std::int64_t sizes_[kMostDimensions];
  py::object leader_;
  std::vector<py::object> copies_;
};

}  // namespace geco::python

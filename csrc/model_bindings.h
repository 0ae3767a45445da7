// The kernels of the models as Python calls them.
#pragma once

#include <pybind11/pybind11.h>

namespace geco::python {

void bind_model_kernels(pybind11::module_& module);
void bind_cuda_model_kernels(pybind11::module_& module);

}  // namespace geco::python

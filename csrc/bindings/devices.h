// The submodules of the extension, one for each device.
#pragma once

#include <pybind11/pybind11.h>

namespace geco::python {

void bind_cpu(pybind11::module_& module);
void bind_cuda(pybind11::module_& module);

}  // namespace geco::python

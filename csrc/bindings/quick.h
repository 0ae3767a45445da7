// Functions for Python without pybind's dispatcher, which takes a microsecond to look at ten arguments: what one small
// step calls. Positional arguments alone, and no overloads.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <exception>
#include <new>
#include <stdexcept>
#include <utility>

#include "bindings/tensor.h"

namespace geco::python {

inline void from_python(PyObject* object, py::handle& value) { value = object; }
inline void from_python(PyObject* object, int& value) { value = static_cast<int>(integer(object)); }
inline void from_python(PyObject* object, std::uintptr_t& value) {
  value = reinterpret_cast<std::uintptr_t>(PyLong_AsVoidPtr(object));
  if (value == 0 && PyErr_Occurred()) throw py::error_already_set();
}

template <class T>
T from_python(PyObject* object) {
  T value{};
  from_python(object, value);
  return value;
}

// What `function` returns to Python, with its exceptions as pybind translates them.
template <class Function>
PyObject* guarded(const Function& function) noexcept {
  try {
    return py::object(function()).release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::bad_alloc& error) {
    PyErr_SetString(PyExc_MemoryError, error.what());
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

inline void expect_arguments(Py_ssize_t given, std::size_t expected) {
  if (given != static_cast<Py_ssize_t>(expected)) throw py::type_error("a wrong number of arguments");
}

using QuickFunction = PyObject* (*)(PyObject* self, PyObject* const* arguments, Py_ssize_t count);

// Puts it into a module. `definition` is the function's own, for as long as the process lives.
inline void define_quick(py::module_& module, PyMethodDef& definition, const char* name, QuickFunction function) {
  definition = {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)), METH_FASTCALL, nullptr};
  module.attr(name) = owned(PyCFunction_New(&definition, nullptr));
}

}  // namespace geco::python

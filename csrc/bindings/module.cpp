// The Python module geco_ext._C.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/constraints.h"
#include "bindings/devices.h"
#include "bindings/quick.h"
#include "bindings/tensor.h"

namespace geco::python {
namespace {

// The tables that both languages know, in the order of their numbers here; Python compares its own with them.
void add_tables(py::module_& module) {
#define GECO_NAME(enumerator, name, ...) name,
  const std::vector<std::string> scale_rules{GECO_SCALE_RULES(GECO_NAME)}, element_rules{GECO_ELEMENT_RULES(GECO_NAME)},
      kinds{GECO_CONSTRAINT_KINDS(GECO_NAME)};
  module.attr("violations") = py::tuple(py::cast(std::vector<std::string>{GECO_VIOLATIONS(GECO_NAME)}));
  module.attr("state_rows") = py::tuple(py::cast(std::vector<std::string>{GECO_STATE_ROWS(GECO_NAME)}));
  module.attr("counters") = py::tuple(py::cast(std::vector<std::string>{GECO_STATE_COUNTERS(GECO_NAME)}));
  module.attr("data_types") = py::tuple(py::cast(std::vector<std::string>{GECO_DATA_TYPES(GECO_NAME)}));
#undef GECO_NAME
  module.attr("multiplier_bounds") = py::make_tuple(kLowestMultiple, kHighestMultiple, kOpeningRate, kMostOfAnOutlier);
  module.attr("scale_rules") = py::tuple(py::cast(scale_rules));
  py::list described;
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const auto kind = static_cast<ConstraintKind>(i);
    const ScaleRule rule = scale_rule(kind);
    py::dict description;
    description["name"] = kinds[i];
    description["scale_rule"] = scale_rules[static_cast<std::size_t>(rule)];
    description["sign"] = static_cast<int>(sign_of_measured(rule));
    description["windowed"] = is_windowed(kind);
    description["elements"] = element_rules[static_cast<std::size_t>(element_rule(kind))];
    described.append(description);
  }
  module.attr("kinds") = py::tuple(described);
}

std::vector<py::object> objects_of(const py::list& list) {
  std::vector<py::object> objects;
  for (py::handle item : list) objects.push_back(py::reinterpret_borrow<py::object>(item));
  return objects;
}

}  // namespace
}  // namespace geco::python

PYBIND11_MODULE(_C, module) {
  using namespace geco;
  using namespace geco::python;
  module.doc() = "Compiled kernels of geco_ext.";
  add_tables(module);

  module.def("set_torch", [](const py::list& types, const py::object& empty_like, const py::object& contiguous_format,
                             const py::object& channels_last, const py::list& plain_classes, const py::object& exchange,
                             const py::object& quick_empty_like, const py::object& fills_new_memory) {
    torch().types = objects_of(types);
    torch().empty_like = empty_like;
    torch().contiguous_format = contiguous_format;
    torch().channels_last = channels_last;
    torch().plain_classes = objects_of(plain_classes);
    torch().exchange = exchange_from(exchange);
    torch().quick_empty_like = quick_empty_like;
    torch().fills_new_memory = fills_new_memory;
  });
  static PyMethodDef lie_at_definition;
  define_quick(module, lie_at_definition, "lie_at", [](PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    return guarded([&] {
      expect_arguments(count, 3);
      if (!PyDict_Check(arguments[0]) || !PyTuple_Check(arguments[1]) || !PyTuple_Check(arguments[2])) {
        throw py::type_error("a dict and two tuples are expected");
      }
      return py::bool_(lie_at(py::reinterpret_borrow<py::dict>(arguments[0]),
                              py::reinterpret_borrow<py::tuple>(arguments[1]),
                              py::reinterpret_borrow<py::tuple>(arguments[2])));
    });
  });

  py::class_<MultiplierUpdate>(module, "MultiplierUpdate")
      .def(py::init([](double alpha, double lr, double proportional, double max_violation, int violation,
                       std::int64_t accumulation_steps) {
        return MultiplierUpdate{
            alpha, lr, proportional, max_violation, static_cast<Violation>(violation), accumulation_steps};
      }));

  py::class_<ConstraintVector>(module, "ConstraintVector")
      .def(py::init<>())
      .def("add", [](ConstraintVector& constraints, int kind, int rows, std::vector<int> inputs, bool mean, int scale,
                     std::int64_t patch_size, std::int64_t stride, double eps, bool per_channel) {
        constraints.add(static_cast<ConstraintKind>(kind), rows, std::move(inputs), mean, static_cast<ScaleRule>(scale),
                        {patch_size, stride, eps, per_channel});
      });

  bind_cpu(module);
#if defined(GECO_CUDA)
  bind_cuda(module);
  module.attr("cuda_architectures") = GECO_CUDA_ARCHITECTURES;
  module.attr("cuda_version") = GECO_CUDA_VERSION;
#else
  module.attr("cuda_architectures") = py::none();
  module.attr("cuda_version") = py::none();
#endif
}

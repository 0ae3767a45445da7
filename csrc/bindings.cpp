// The Python module geco_ext._C. Tensors arrive as tuples (address, type, sizes, strides); see csrc/call.h.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "call.h"
#include "cpu/lagrangian.h"
#include "cpu/run.h"
#if defined(GECO_CUDA)
#include "cuda/lagrangian.h"
#endif

namespace py = pybind11;

namespace {

using geco::Call;
using geco::DataType;
using geco::Input;
using geco::MultiplierUpdate;
using geco::ScaleRule;
using geco::State;
using geco::Tensor;
using geco::Term;
using geco::TermKind;
using geco::Violation;

std::int64_t integer(PyObject* object) {
  const long long value = PyLong_AsLongLong(object);
  if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
  return value;
}

void* address(PyObject* object) {
  void* pointer = PyLong_AsVoidPtr(object);
  if (pointer == nullptr && PyErr_Occurred()) throw py::error_already_set();
  return pointer;
}

// (address, type, sizes, strides) or None
Tensor tensor_from(py::handle object) {
  Tensor tensor;
  if (object.is_none()) return tensor;
  PyObject* fields = object.ptr();
  if (!PyTuple_Check(fields) || PyTuple_GET_SIZE(fields) != 4) throw py::type_error("expected a tensor tuple or None");
  tensor.data = address(PyTuple_GET_ITEM(fields, 0));
  tensor.type = static_cast<DataType>(integer(PyTuple_GET_ITEM(fields, 1)));
  PyObject* sizes = PyTuple_GET_ITEM(fields, 2);
  PyObject* strides = PyTuple_GET_ITEM(fields, 3);
  tensor.rank = static_cast<int>(PyTuple_GET_SIZE(sizes));
  if (tensor.rank > geco::kMaxRank) {
    throw py::value_error("tensors of more than " + std::to_string(geco::kMaxRank) + " dimensions are not supported");
  }
  for (int d = 0; d < tensor.rank; ++d) {
    tensor.sizes[d] = integer(PyTuple_GET_ITEM(sizes, d));
    tensor.strides[d] = integer(PyTuple_GET_ITEM(strides, d));
  }
  return tensor;
}

std::vector<Tensor> tensors_from(const py::list& list) {
  std::vector<Tensor> tensors;
  tensors.reserve(list.size());
  for (py::handle item : list) tensors.push_back(tensor_from(item));
  return tensors;
}

// What a criterion computes, read once: its terms in the order of their rows.
class Program {
 public:
  void add(TermKind kind, int rows, std::vector<int> inputs, bool mean, bool from_logits, ScaleRule scale) {
    Term term;
    term.kind = kind;
    term.first_row = constraints_;
    term.rows = rows;
    term.inputs = std::move(inputs);
    term.mean = mean;
    term.from_logits = from_logits;
    term.scale = scale;
    constraints_ += rows;
    terms_.push_back(std::move(term));
  }

  // inputs: a list of (prediction, target or None, gradient or None)
  Call call(const py::list& inputs, py::handle kl, py::handle kl_gradient, std::uintptr_t state, std::int64_t batch,
            std::int64_t image_elements, std::uintptr_t loss, bool loss_is_double) const {
    Call call;
    call.terms = &terms_;
    call.inputs.reserve(inputs.size());
    for (py::handle item : inputs) {
      PyObject* fields = item.ptr();
      if (!PyTuple_Check(fields) || PyTuple_GET_SIZE(fields) != 3) throw py::type_error("expected three tensor tuples");
      call.inputs.push_back({tensor_from(PyTuple_GET_ITEM(fields, 0)), tensor_from(PyTuple_GET_ITEM(fields, 1)),
                             tensor_from(PyTuple_GET_ITEM(fields, 2))});
    }
    call.kl = tensor_from(kl);
    call.kl_gradient = tensor_from(kl_gradient);
    call.state = State{reinterpret_cast<double*>(state), constraints_};
    call.batch = batch;
    call.image_elements = image_elements;
    call.loss = reinterpret_cast<void*>(loss);
    call.loss_is_double = loss_is_double;
    return call;
  }

 private:
  std::vector<Term> terms_;
  int constraints_ = 0;
};

void bind_cpu(py::module_& module) {
  py::module_ cpu = module.def_submodule("cpu", "C++ kernels for the host.");

  cpu.def("lagrangian", [](const Program& program, const py::list& inputs, py::handle kl, py::handle kl_gradient,
                           std::uintptr_t state, std::int64_t batch, std::int64_t image_elements, std::uintptr_t loss,
                           bool loss_is_double, const MultiplierUpdate* update, int threads) {
    Call call = program.call(inputs, kl, kl_gradient, state, batch, image_elements, loss, loss_is_double);
    call.update = update;
    call.threads = threads;
    py::gil_scoped_release release;
    geco::cpu::lagrangian(call);
  });

  cpu.def("constraint_sums",
          [](const Program& program, const py::list& inputs, py::handle kl, py::handle kl_gradient,
             std::uintptr_t state, std::int64_t batch, std::int64_t image_elements, std::uintptr_t sums, int threads) {
            Call call = program.call(inputs, kl, kl_gradient, state, batch, image_elements, 0, false);
            call.threads = threads;
            py::gil_scoped_release release;
            geco::cpu::constraint_sums(call, reinterpret_cast<double*>(sums));
          });

  cpu.def("update_from_sums",
          [](const Program& program, const py::list& inputs, py::handle kl, py::handle kl_gradient,
             std::uintptr_t state, std::int64_t batch, std::int64_t image_elements, std::uintptr_t sums, int world_size,
             std::uintptr_t loss, bool loss_is_double, std::uintptr_t gradient_factor, const MultiplierUpdate& update) {
            Call call = program.call(inputs, kl, kl_gradient, state, batch, image_elements, loss, loss_is_double);
            call.update = &update;
            geco::cpu::update_from_sums(call, reinterpret_cast<const double*>(sums), world_size,
                                        reinterpret_cast<double*>(gradient_factor));
          });

  cpu.def("scale_gradients",
          [](const py::list& gradients, const py::list& outputs, const py::tuple& factor, int threads) {
            const std::vector<Tensor> in = tensors_from(gradients), out = tensors_from(outputs);
            if (in.size() != out.size()) throw py::value_error("as many outputs as gradients are needed");
            const double value = geco::cpu::read_element(tensor_from(factor), 0);
            py::gil_scoped_release release;
            geco::cpu::scale_gradients(in.data(), out.data(), static_cast<int>(in.size()), value, threads);
          });

  cpu.def("is_one", [](std::uintptr_t address, int type) {
    Tensor scalar;
    scalar.data = reinterpret_cast<void*>(address);
    scalar.type = static_cast<DataType>(type);
    return geco::cpu::read_element(scalar, 0) == 1.0;
  });

  cpu.def("capability", [] { return geco::cpu::run_table().name; });
  cpu.def("has_openmp", [] {
#if defined(_OPENMP)
    return true;
#else
    return false;
#endif
  });
}

#if defined(GECO_CUDA)
void bind_cuda(py::module_& module) {
  using geco::cuda::Place;
  py::module_ cuda = module.def_submodule("cuda", "CUDA kernels; addresses are on the device, streams raw handles.");
  cuda.attr("MAX_INPUTS") = geco::cuda::kMaxInputs;
  cuda.attr("MAX_TERMS") = geco::cuda::kMaxTerms;
  cuda.attr("MAX_ROWS") = geco::cuda::kMaxRows;
  cuda.attr("MAX_DIMENSIONS") = geco::cuda::kMaxDimensions;

  const auto place = [](int device, std::uintptr_t stream, std::uintptr_t workspace) {
    return Place{device, reinterpret_cast<void*>(stream), reinterpret_cast<double*>(workspace)};
  };

  cuda.def("lagrangian", [place](const Program& program, const py::list& inputs, py::handle kl, py::handle kl_gradient,
                                 std::uintptr_t state, std::int64_t batch, std::int64_t image_elements,
                                 std::uintptr_t loss, bool loss_is_double, const MultiplierUpdate* update, int device,
                                 std::uintptr_t stream, std::uintptr_t workspace) {
    Call call = program.call(inputs, kl, kl_gradient, state, batch, image_elements, loss, loss_is_double);
    call.update = update;
    geco::cuda::lagrangian(call, place(device, stream, workspace));
  });

  cuda.def("constraint_sums",
           [place](const Program& program, const py::list& inputs, py::handle kl, py::handle kl_gradient,
                   std::uintptr_t state, std::int64_t batch, std::int64_t image_elements, std::uintptr_t sums,
                   int device, std::uintptr_t stream, std::uintptr_t workspace) {
             const Call call = program.call(inputs, kl, kl_gradient, state, batch, image_elements, 0, false);
             geco::cuda::constraint_sums(call, place(device, stream, workspace), reinterpret_cast<double*>(sums));
           });

  cuda.def("update_from_sums",
           [place](const Program& program, const py::list& inputs, py::handle kl, py::handle kl_gradient,
                   std::uintptr_t state, std::int64_t batch, std::int64_t image_elements, std::uintptr_t sums,
                   int world_size, std::uintptr_t loss, bool loss_is_double, std::uintptr_t gradient_factor,
                   const MultiplierUpdate& update, int device, std::uintptr_t stream) {
             Call call = program.call(inputs, kl, kl_gradient, state, batch, image_elements, loss, loss_is_double);
             call.update = &update;
             geco::cuda::update_from_sums(call, place(device, stream, 0), reinterpret_cast<const double*>(sums),
                                          world_size, reinterpret_cast<double*>(gradient_factor));
           });

  cuda.def("scale_gradients", [place](const py::list& gradients, const py::list& outputs, const py::tuple& factor,
                                      int device, std::uintptr_t stream) {
    const std::vector<Tensor> in = tensors_from(gradients), out = tensors_from(outputs);
    if (in.size() != out.size()) throw py::value_error("as many outputs as gradients are needed");
    geco::cuda::scale_gradients(in.data(), out.data(), static_cast<int>(in.size()), tensor_from(factor),
                                place(device, stream, 0));
  });

  cuda.def("workspace_words", &geco::cuda::workspace_words);
  cuda.def("device_problem", []() -> py::object {
    const std::string problem = geco::cuda::device_problem();
    return problem.empty() ? py::object(py::none()) : py::object(py::str(problem));
  });
}
#endif

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Compiled kernels of geco_ext.";

  py::class_<MultiplierUpdate>(module, "MultiplierUpdate")
      .def(py::init([](double alpha, double lr, double proportional, double max_violation, int violation,
                       std::int64_t accumulation_steps) {
        return MultiplierUpdate{
            alpha, lr, proportional, max_violation, static_cast<Violation>(violation), accumulation_steps};
      }));

  py::class_<Program>(module, "Program")
      .def(py::init<>())
      .def("add",
           [](Program& program, int kind, int rows, std::vector<int> inputs, bool mean, bool from_logits, int scale) {
             program.add(static_cast<TermKind>(kind), rows, std::move(inputs), mean, from_logits,
                         static_cast<ScaleRule>(scale));
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

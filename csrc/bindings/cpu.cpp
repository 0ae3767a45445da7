// _C.cpu: C++ kernels for tensors in host memory.

#include "bindings/devices.h"
#include "bindings/image_step.h"
#include "bindings/loss.h"
#include "bindings/models.h"
#include "cpu/constraints.h"
#include "cpu/isa/kernels.h"
#include "cpu/models.h"
#include "cpu/step.h"

namespace geco::python {
namespace {

struct Cpu {
  using Launch = Arguments<int>;
  using Update = Arguments<>;
  using Scale = Arguments<int>;

  int threads;

  explicit Cpu(int with_threads = 1) : threads(with_threads) {}

  void lagrangian(LossCall& call) const {
    call.threads = threads;
    cpu::lagrangian(call);
  }
  void constraint_sums(LossCall& call, double* sums) const {
    call.threads = threads;
    cpu::constraint_sums(call, sums);
  }
  void update_from_sums(const LossCall& call, const double* sums, int world_size, double* gradient_factor) const {
    cpu::update_from_sums(call, sums, world_size, gradient_factor);
  }
  void scale_gradients(const Tensor* gradients, const Tensor* outputs, int count, const Tensor& factor) const {
    cpu::scale_gradients(gradients, outputs, count, cpu::read_element(factor, 0), threads);
  }

  static PyObject* is_here() {
    static PyObject* const name = PyUnicode_InternFromString("is_cpu");
    return name;
  }
  template <class Call>
  static void compute(const Call& call, int threads) {
    py::gil_scoped_release release;
    cpu::compute(call, threads);
  }
};

}  // namespace

void bind_cpu(py::module_& module) {
  py::module_ functions = module.def_submodule("cpu", "C++ kernels for the host.");
  bind_loss<Cpu>(functions);
  bind_image_step<Cpu>(functions);
  bind_models<Cpu, int>(functions);

  functions.def("is_one", [](py::handle scalar) {
    Tensor tensor;
    tensor.data = address_of(scalar);
    tensor.type = type_from(scalar);
    return cpu::read_element(tensor, 0) == 1.0;
  });
  functions.def("capability", [] { return cpu::kernels().instruction_set; });
  functions.def("capabilities", [] {
    py::list names;
    for (const cpu::KernelTable* kernels : cpu::supported_kernels()) names.append(kernels->instruction_set);
    return names;
  });
  functions.def("has_openmp", [] {
#if defined(_OPENMP)
    return true;
#else
    return false;
#endif
  });
}

}  // namespace geco::python

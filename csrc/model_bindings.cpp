#include "model_bindings.h"

#include "cpu/model_kernels.h"
#include "model_functions.h"

namespace geco::python {
namespace {

void compute(const GaussianCall& call, int threads) { cpu::gaussian_rsample_kl(call, threads); }
void compute(const GaussianBackwardCall& call, int threads) { cpu::gaussian_rsample_kl_backward(call, threads); }
void compute(const GatesCall& call, int threads) { cpu::lstm_gates(call, threads); }
void compute(const GatesBackwardCall& call, int threads) { cpu::lstm_gates_backward(call, threads); }
void compute(const CouplingCall& call, int threads) { cpu::affine_coupling(call, threads); }
void compute(const CouplingBackwardCall& call, int threads) { cpu::affine_coupling_backward(call, threads); }

struct OnCpu {
  static PyObject* is_here() {
    static PyObject* const name = PyUnicode_InternFromString("is_cpu");
    return name;
  }

  template <class Call>
  static void run(const Call& call, const Operands&, int threads) {
    py::gil_scoped_release release;
    compute(call, threads);
  }
};

}  // namespace

void bind_model_kernels(py::module_& module) {
  py::module_ cpu = module.attr("cpu");
  bind_functions<OnCpu, int>(cpu);
}

}  // namespace geco::python

#include "cuda/model_kernels.h"
#include "model_bindings.h"
#include "model_functions.h"

#if !defined(GECO_CUDA_TENSORS)
#define GECO_CUDA_TENSORS "is_cuda"  // the kernels' tests have tensors in host memory
#endif

namespace geco::python {
namespace {

void compute(const GaussianCall& call, const cuda::ModelPlace& place) { cuda::gaussian_rsample_kl(call, place); }
void compute(const GaussianBackwardCall& call, const cuda::ModelPlace& place) {
  cuda::gaussian_rsample_kl_backward(call, place);
}
void compute(const GatesCall& call, const cuda::ModelPlace& place) { cuda::lstm_gates(call, place); }
void compute(const GatesBackwardCall& call, const cuda::ModelPlace& place) { cuda::lstm_gates_backward(call, place); }
void compute(const CouplingCall& call, const cuda::ModelPlace& place) { cuda::affine_coupling(call, place); }
void compute(const CouplingBackwardCall& call, const cuda::ModelPlace& place) {
  cuda::affine_coupling_backward(call, place);
}

struct OnCuda {
  static PyObject* is_here() {
    static PyObject* const name = PyUnicode_InternFromString(GECO_CUDA_TENSORS);
    return name;
  }

  // `stream`: the current one, as a raw handle; `workspace` returns the memory of that stream.
  template <class Call>
  static void run(const Call& call, const Operands&, int device, std::uintptr_t stream, const py::object& workspace) {
    py::object memory;
    const auto address = [&] {
      memory = workspace(device, stream);
      return doubles_of(memory);
    };
    compute(call, {device, reinterpret_cast<void*>(stream), address});
  }
};

}  // namespace

void bind_cuda_model_kernels(py::module_& module) {
  py::module_ cuda = module.attr("cuda");
  bind_functions<OnCuda, int, std::uintptr_t, py::object>(cuda);
}

}  // namespace geco::python

// _C.cuda: kernels for NVIDIA GPUs. Addresses are on the device, streams raw handles; nothing here waits for a device.

#include <string>
#include <utility>

#include "bindings/devices.h"
#include "bindings/image_step.h"
#include "bindings/loss.h"
#include "bindings/models.h"
#include "cuda/models.h"
#include "cuda/step.h"
#include "cuda/workspace.h"

#if !defined(GECO_CUDA_TENSORS)
#define GECO_CUDA_TENSORS "is_cuda"  // the kernels' tests have tensors in host memory
#endif

namespace geco::python {
namespace {

struct Cuda {
  using Launch = Arguments<int, std::uintptr_t, py::handle>;
  using Update = Arguments<int, std::uintptr_t>;
  using Scale = Arguments<int, std::uintptr_t>;

  cuda::Place place;

  Cuda(int device, std::uintptr_t stream) : place{device, reinterpret_cast<void*>(stream), {}} {}

  // `workspace`: the tensor.
  Cuda(int device, std::uintptr_t stream, py::handle workspace) : Cuda(device, stream) {
    place.workspace = [address = doubles_of(workspace)] { return address; };
  }

  void lagrangian(const LossCall& call) const { cuda::lagrangian(call, place); }
  void constraint_sums(const LossCall& call, double* sums) const { cuda::constraint_sums(call, place, sums); }
  void update_from_sums(const LossCall& call, const double* sums, int world_size, double* gradient_factor) const {
    cuda::update_from_sums(call, place, sums, world_size, gradient_factor);
  }
  void scale_gradients(const Tensor* gradients, const Tensor* outputs, int count, const Tensor& factor) const {
    cuda::scale_gradients(gradients, outputs, count, factor, place);
  }

  static PyObject* is_here() {
    static PyObject* const name = PyUnicode_InternFromString(GECO_CUDA_TENSORS);
    return name;
  }
  // `workspace`: a function of device and stream that returns the tensor; few calls need it.
  template <class Call>
  static void compute(const Call& call, int device, std::uintptr_t stream, const py::object& workspace) {
    py::object tensor;
    Cuda here(device, stream);
    here.place.workspace = [&] {
      tensor = workspace(device, stream);
      return doubles_of(tensor);
    };
    cuda::compute(call, here.place);
  }
};

py::object text_or_none(const std::string& text) { return text.empty() ? py::object(py::none()) : py::str(text); }

py::object refuses(const ConstraintVector& constraints, const py::list& predictions, const py::list& targets,
                   const py::list& weights, const py::list& gradients, py::handle kl, py::handle state,
                   std::int64_t batch, std::int64_t image_elements, int device) {
  try {
    const LossCall call =
        constraints.call(predictions, targets, weights, gradients, kl, state, batch, image_elements, py::none());
    return text_or_none(cuda::refuses(call, device));
  } catch (const py::builtin_exception& error) {  // a type or a rank that tensor_from does not know
    return text_or_none(error.what());
  }
}

}  // namespace

void bind_cuda(py::module_& module) {
  py::module_ functions =
      module.def_submodule("cuda", "CUDA kernels; addresses are on the device, streams raw handles.");
  functions.def("refuses", &refuses);
  bind_loss<Cuda>(functions);
  bind_image_step<Cuda>(functions);
  bind_models<Cuda, int, std::uintptr_t, py::object>(functions);

  functions.def("workspace_words", &cuda::workspace_words);
  functions.attr("TICKET_WORDS") = cuda::kTicketWords;
  functions.def("is_capturing",
                [](std::uintptr_t stream) { return cuda::is_capturing(reinterpret_cast<void*>(stream)); });
  functions.def("driver_version", &cuda::driver_version);
  functions.def("capability", [](int device) {
    const cuda::Capability capability = cuda::capability_of(device);
    return std::make_pair(capability.major, capability.minor);
  });
  functions.def("device_problem", [](int device) { return text_or_none(cuda::device_problem(device)); });
}

}  // namespace geco::python

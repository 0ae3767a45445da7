// The Python module geco_ext._C.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "call.h"
#include "cpu/lagrangian.h"
#include "cpu/run.h"
#include "model_bindings.h"
#include "python_tensor.h"
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
using geco::python::address_of;
using geco::python::attribute_is_true;
using geco::python::doubles_of;
using geco::python::is_contiguous;
using geco::python::numbers_from;
using geco::python::owned;
using geco::python::tensor_from;
using geco::python::tensors_from;
using geco::python::torch;
using geco::python::type_from;

// What a criterion computes, read once: its terms in the order of their rows.
class Program {
 public:
  void add(TermKind kind, int rows, std::vector<int> inputs, bool mean, bool from_logits, bool log_gradient,
           ScaleRule scale, const geco::Patches& patches) {
    if (scale != geco::scale_rule(kind)) throw py::value_error("that is not the scale rule of this kind of constraint");
    Term term;
    term.kind = kind;
    term.first_row = constraints_;
    term.rows = rows;
    term.inputs = std::move(inputs);
    term.mean = mean;
    term.from_logits = from_logits;
    term.log_gradient = log_gradient;
    term.patches = patches;
    constraints_ += rows;
    terms_.push_back(std::move(term));
  }

  // Lists of tensors or None; `gradients` has one more than the others, that of kl.
  Call call(const py::list& predictions, const py::list& targets, const py::list& gradients, py::handle kl,
            py::handle state, std::int64_t batch, std::int64_t image_elements, py::handle loss) const {
    const std::size_t count = predictions.size();
    if (targets.size() != count || gradients.size() != count + 1) throw py::value_error("lists of unequal lengths");
    Call call;
    describe(call, state);
    call.inputs.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      call.inputs.push_back({tensor_from(predictions[i]), tensor_from(targets[i]), tensor_from(gradients[i])});
    }
    call.kl = tensor_from(kl);
    call.kl_gradient = tensor_from(gradients[count]);
    call.batch = batch;
    call.image_elements = image_elements;
    if (!loss.is_none()) {
      call.loss = address_of(loss);
      call.loss_is_double = type_from(loss) == DataType::kFloat64;
    }
    return call;
  }

  // Whether its terms can read these images.
  bool fits(const Tensor& images) const {
    for (const Term& term : terms_) {
      if (term.rows > 1 && (images.rank < 2 || images.sizes[1] != term.rows)) return false;
      if (!geco::is_windowed(term.kind)) continue;
      if (images.rank != 4 || std::min(images.sizes[2], images.sizes[3]) < term.patches.size) return false;
    }
    return true;
  }

  void describe(Call& call, py::handle state) const {
    call.terms = &terms_;
    call.state = State{doubles_of(state), constraints_};
  }

 private:
  std::vector<Term> terms_;
  int constraints_ = 0;
};

// As geco_ext.backends says; Python's environment is that of the process, and slow to ask.
bool backend_is_asked_for() { return std::getenv("GECO_EXT_BACKEND") != nullptr; }

// Where a step runs: nothing in it waits for the device, or needs to know more of it.
struct OnCpu {
  int threads;

  void run(Call& call) const {
    call.threads = threads;
    geco::cpu::lagrangian(call);
  }
  void scale(const Tensor* gradients, int count, const Tensor& factor) const {
    const double value = geco::cpu::read_element(factor, 0);
    if (value != 1.0) geco::cpu::scale_gradients(gradients, gradients, count, value, threads);
  }
};

#if defined(GECO_CUDA)
struct OnCuda {
  geco::cuda::Place place;

  void run(Call& call) const { geco::cuda::lagrangian(call, place); }
  void scale(const Tensor* gradients, int count, const Tensor& factor) const {
    geco::cuda::scale_gradients(gradients, gradients, count, factor, place);
  }
};
#endif

// A gradient as large as its tensor. Half types get float32, so that backward rounds once, after scaling.
py::object new_gradient(py::handle tensor, const Tensor& described, Tensor& gradient) {
  static PyObject* const dtype_keyword = PyTuple_Pack(1, PyUnicode_InternFromString("dtype"));
  const bool rounds = described.type != DataType::kFloat32 && described.type != DataType::kFloat64;
  PyObject* const arguments[] = {tensor.ptr(), torch().type(DataType::kFloat32).ptr()};
  const py::object made = rounds ? owned(PyObject_Vectorcall(torch().empty_like.ptr(), arguments, 1, dtype_keyword))
                                 : owned(PyObject_CallOneArg(torch().empty_like.ptr(), tensor.ptr()));
  if (is_contiguous(described)) {  // then so is what is made like it, and need not be asked
    gradient = described;
    gradient.data = address_of(made);
    if (rounds) gradient.type = DataType::kFloat32;
  } else {
    gradient = tensor_from(made);
  }
  return made;
}

py::object new_loss(py::handle state, bool is_double) {
  static PyObject* const new_empty = PyUnicode_InternFromString("new_empty");
  static PyObject* const dtype_keyword = PyTuple_Pack(1, PyUnicode_InternFromString("dtype"));
  static PyObject* const no_sizes = PyTuple_New(0);
  const DataType type = is_double ? DataType::kFloat64 : DataType::kFloat32;
  PyObject* const arguments[] = {state.ptr(), no_sizes, torch().type(type).ptr()};
  return owned(PyObject_VectorcallMethod(new_empty, arguments, 2, dtype_keyword));
}

// Whether all of them are where the state is; and none of them a negated view (of a complex tensor), which has its sign
// in a flag that an address does not show.
bool are_plain_and_with(py::handle state, std::initializer_list<py::handle> tensors) {
  static PyObject* const device_name = PyUnicode_InternFromString("device");
  static PyObject* const is_neg = PyUnicode_InternFromString("is_neg");
  const py::object device = owned(PyObject_GetAttr(state.ptr(), device_name));
  for (py::handle tensor : tensors) {
    const py::object here = owned(PyObject_GetAttr(tensor.ptr(), device_name));
    if (PyObject_RichCompareBool(here.ptr(), device.ptr(), Py_EQ) != 1) return false;
    if (owned(PyObject_CallMethodNoArgs(tensor.ptr(), is_neg)).ptr() == Py_True) return false;
  }
  return true;
}

// A call of a criterion that looks at the images alone, from the tensors to the loss and its gradients: for small
// images the Python between a check and a kernel costs more than the kernel. Whatever is not the usual case (tensors on
// several devices, a target that wants a gradient, bad input) returns None and takes the way of all calls.
template <class Device>
py::object usual_image_step(const Program& program, const MultiplierUpdate* update, py::handle x_hat, py::handle x,
                            py::handle kl, py::handle state, bool grad_enabled, const Device& device) {
  static PyObject* const requires_grad = PyUnicode_InternFromString("requires_grad");
  if (backend_is_asked_for()) return py::none();
  if (!are_plain_and_with(state, {x_hat, x, kl})) return py::none();
  Call call;
  Input image{tensor_from(x_hat), tensor_from(x), {}};
  call.kl = tensor_from(kl);
  const Tensor& prediction = image.prediction;
  for (DataType type : {prediction.type, image.target.type, call.kl.type}) {
    if (type == DataType::kInt64) return py::none();
  }
  if (prediction.rank < 1 || prediction.rank != image.target.rank || prediction.elements() == 0) return py::none();
  for (int d = 0; d < prediction.rank; ++d) {
    if (prediction.sizes[d] != image.target.sizes[d]) return py::none();
  }
  if (!program.fits(prediction)) return py::none();
  call.batch = prediction.sizes[0];
  if (call.kl.rank > 1 || (call.kl.rank == 1 && call.kl.sizes[0] != call.batch)) return py::none();
  if (grad_enabled && attribute_is_true(x, requires_grad)) return py::none();

  bool rounds = false;
  const auto gradient_of = [&](py::handle tensor, const Tensor& described, Tensor& gradient) {
    if (!grad_enabled || !attribute_is_true(tensor, requires_grad)) return py::object(py::none());
    const py::object made = new_gradient(tensor, described, gradient);
    rounds = rounds || gradient.type != described.type;
    return made;
  };
  const py::object image_gradient = gradient_of(x_hat, prediction, image.gradient);
  const py::object kl_gradient = gradient_of(kl, call.kl, call.kl_gradient);
  call.loss_is_double = prediction.type == DataType::kFloat64;
  const py::object loss = new_loss(state, call.loss_is_double);

  call.inputs.push_back(image);
  call.loss = address_of(loss);
  call.image_elements = prediction.elements() / call.batch;
  call.update = update;
  program.describe(call, state);
  {
    py::gil_scoped_release release;
    device.run(call);
  }
  return py::make_tuple(loss, kl_gradient, image_gradient, rounds);
}

template <class Device>
py::object image_step(const Program& program, const MultiplierUpdate* update, py::handle x_hat, py::handle x,
                      py::handle kl, py::handle state, bool grad_enabled, const Device& device) {
  try {
    return usual_image_step(program, update, x_hat, x, kl, state, grad_enabled, device);
  } catch (const py::builtin_exception&) {  // a type or a rank that tensor_from does not know; nothing has run yet
    return py::none();
  } catch (const std::invalid_argument&) {  // more than a kernel takes, as its plan found out; nor has it here
    return py::none();
  }
}

// The gradients of such a call times the incoming one, in place; false, and nothing done, where a backend is asked for.
template <class Device>
bool image_step_backward(py::handle kl_gradient, py::handle image_gradient, py::handle incoming, const Device& device) {
  if (backend_is_asked_for()) return false;
  Tensor gradients[2];
  int count = 0;
  for (py::handle gradient : {kl_gradient, image_gradient}) {
    if (!gradient.is_none()) gradients[count++] = numbers_from(gradient);
  }
  const Tensor factor = numbers_from(incoming);
  py::gil_scoped_release release;
  device.scale(gradients, count, factor);
  return true;
}

void bind_cpu(py::module_& module) {
  py::module_ cpu = module.def_submodule("cpu", "C++ kernels for the host.");

  cpu.def("lagrangian", [](const Program& program, const py::list& predictions, const py::list& targets,
                           const py::list& gradients, py::handle kl, py::handle state, std::int64_t batch,
                           std::int64_t image_elements, py::handle loss, const MultiplierUpdate* update, int threads) {
    Call call = program.call(predictions, targets, gradients, kl, state, batch, image_elements, loss);
    call.update = update;
    call.threads = threads;
    py::gil_scoped_release release;
    geco::cpu::lagrangian(call);
  });

  cpu.def("constraint_sums", [](const Program& program, const py::list& predictions, const py::list& targets,
                                const py::list& gradients, py::handle kl, py::handle state, std::int64_t batch,
                                std::int64_t image_elements, py::handle sums, int threads) {
    Call call = program.call(predictions, targets, gradients, kl, state, batch, image_elements, py::none());
    call.threads = threads;
    double* const values = doubles_of(sums);
    py::gil_scoped_release release;
    geco::cpu::constraint_sums(call, values);
  });

  cpu.def("update_from_sums",
          [](const Program& program, const py::list& predictions, const py::list& targets, const py::list& gradients,
             py::handle kl, py::handle state, std::int64_t batch, std::int64_t image_elements, py::handle sums,
             int world_size, py::handle loss, py::handle gradient_factor, const MultiplierUpdate& update) {
            Call call = program.call(predictions, targets, gradients, kl, state, batch, image_elements, loss);
            call.update = &update;
            geco::cpu::update_from_sums(call, doubles_of(sums), world_size, doubles_of(gradient_factor));
          });

  cpu.def("scale_gradients", [](const py::list& gradients, const py::list& outputs, py::handle factor, int threads) {
    const double value = geco::cpu::read_element(tensor_from(factor), 0);
    const std::vector<Tensor> in = tensors_from(gradients), out = tensors_from(outputs);
    if (in.size() != out.size()) throw py::value_error("as many outputs as gradients are needed");
    py::gil_scoped_release release;
    geco::cpu::scale_gradients(in.data(), out.data(), static_cast<int>(in.size()), value, threads);
  });

  cpu.def("image_step", [](const Program& program, const MultiplierUpdate* update, py::handle x_hat, py::handle x,
                           py::handle kl, py::handle state, bool grad_enabled, int threads) {
    return image_step(program, update, x_hat, x, kl, state, grad_enabled, OnCpu{threads});
  });

  cpu.def("image_step_backward",
          [](py::handle kl_gradient, py::handle image_gradient, py::handle incoming, int threads) {
            return image_step_backward(kl_gradient, image_gradient, incoming, OnCpu{threads});
          });

  cpu.def("is_one", [](py::handle scalar) {
    Tensor tensor;
    tensor.data = address_of(scalar);
    tensor.type = type_from(scalar);
    return geco::cpu::read_element(tensor, 0) == 1.0;
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
py::object text_or_none(const std::string& text) { return text.empty() ? py::object(py::none()) : py::str(text); }

void bind_cuda(py::module_& module) {
  using geco::cuda::Place;
  py::module_ cuda = module.def_submodule("cuda", "CUDA kernels; addresses are on the device, streams raw handles.");

  const auto place = [](int device, std::uintptr_t stream, py::handle workspace = py::none()) {
    return Place{device, reinterpret_cast<void*>(stream), workspace.is_none() ? nullptr : doubles_of(workspace)};
  };

  cuda.def("refuses", [](const Program& program, const py::list& predictions, const py::list& targets,
                         const py::list& gradients, py::handle kl, py::handle state, std::int64_t batch,
                         std::int64_t image_elements, int device) {
    try {
      return text_or_none(geco::cuda::refuses(
          program.call(predictions, targets, gradients, kl, state, batch, image_elements, py::none()), device));
    } catch (const py::builtin_exception& error) {  // a type or a rank that tensor_from does not know
      return text_or_none(error.what());
    }
  });

  cuda.def("lagrangian", [place](const Program& program, const py::list& predictions, const py::list& targets,
                                 const py::list& gradients, py::handle kl, py::handle state, std::int64_t batch,
                                 std::int64_t image_elements, py::handle loss, const MultiplierUpdate* update,
                                 int device, std::uintptr_t stream, py::handle workspace) {
    Call call = program.call(predictions, targets, gradients, kl, state, batch, image_elements, loss);
    call.update = update;
    geco::cuda::lagrangian(call, place(device, stream, workspace));
  });

  cuda.def("constraint_sums", [place](const Program& program, const py::list& predictions, const py::list& targets,
                                      const py::list& gradients, py::handle kl, py::handle state, std::int64_t batch,
                                      std::int64_t image_elements, py::handle sums, int device, std::uintptr_t stream,
                                      py::handle workspace) {
    const Call call = program.call(predictions, targets, gradients, kl, state, batch, image_elements, py::none());
    geco::cuda::constraint_sums(call, place(device, stream, workspace), doubles_of(sums));
  });

  cuda.def("update_from_sums",
           [place](const Program& program, const py::list& predictions, const py::list& targets,
                   const py::list& gradients, py::handle kl, py::handle state, std::int64_t batch,
                   std::int64_t image_elements, py::handle sums, int world_size, py::handle loss,
                   py::handle gradient_factor, const MultiplierUpdate& update, int device, std::uintptr_t stream) {
             Call call = program.call(predictions, targets, gradients, kl, state, batch, image_elements, loss);
             call.update = &update;
             geco::cuda::update_from_sums(call, place(device, stream), doubles_of(sums), world_size,
                                          doubles_of(gradient_factor));
           });

  cuda.def("scale_gradients", [place](const py::list& gradients, const py::list& outputs, py::handle factor, int device,
                                      std::uintptr_t stream) {
    const std::vector<Tensor> in = tensors_from(gradients), out = tensors_from(outputs);
    if (in.size() != out.size()) throw py::value_error("as many outputs as gradients are needed");
    geco::cuda::scale_gradients(in.data(), out.data(), static_cast<int>(in.size()), tensor_from(factor),
                                place(device, stream));
  });

  cuda.def("image_step", [place](const Program& program, const MultiplierUpdate* update, py::handle x_hat, py::handle x,
                                 py::handle kl, py::handle state, bool grad_enabled, int device, std::uintptr_t stream,
                                 py::handle workspace) {
    return image_step(program, update, x_hat, x, kl, state, grad_enabled, OnCuda{place(device, stream, workspace)});
  });

  cuda.def("image_step_backward", [place](py::handle kl_gradient, py::handle image_gradient, py::handle incoming,
                                          int device, std::uintptr_t stream) {
    return image_step_backward(kl_gradient, image_gradient, incoming, OnCuda{place(device, stream)});
  });

  cuda.def("workspace_words", &geco::cuda::workspace_words);
  cuda.attr("TICKET_WORDS") = geco::cuda::kTicketWords;
  cuda.def("is_capturing",
           [](std::uintptr_t stream) { return geco::cuda::is_capturing(reinterpret_cast<void*>(stream)); });
  cuda.def("driver_version", &geco::cuda::driver_version);
  cuda.def("capability", [](int device) {
    const geco::cuda::Capability capability = geco::cuda::capability_of(device);
    return std::make_pair(capability.major, capability.minor);
  });
  cuda.def("device_problem", [](int device) { return text_or_none(geco::cuda::device_problem(device)); });
}
#endif

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
  module.attr("scale_rules") = py::tuple(py::cast(scale_rules));
  py::list described;
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const auto kind = static_cast<TermKind>(i);
    const ScaleRule rule = geco::scale_rule(kind);
    py::dict description;
    description["name"] = kinds[i];
    description["scale_rule"] = scale_rules[static_cast<std::size_t>(rule)];
    description["sign"] = static_cast<int>(geco::sign_of_measured(rule));
    description["windowed"] = geco::is_windowed(kind);
    description["elements"] = element_rules[static_cast<std::size_t>(geco::element_rule(kind))];
    described.append(description);
  }
  module.attr("kinds") = py::tuple(described);
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Compiled kernels of geco_ext.";
  add_tables(module);

  module.def("set_torch", [](const py::list& types, const py::object& empty_like, const py::object& contiguous_format,
                             const py::object& channels_last) {
    torch().types.clear();
    for (py::handle type : types) torch().types.push_back(py::reinterpret_borrow<py::object>(type));
    torch().empty_like = empty_like;
    torch().contiguous_format = contiguous_format;
    torch().channels_last = channels_last;
  });

  py::class_<MultiplierUpdate>(module, "MultiplierUpdate")
      .def(py::init([](double alpha, double lr, double proportional, double max_violation, int violation,
                       std::int64_t accumulation_steps) {
        return MultiplierUpdate{
            alpha, lr, proportional, max_violation, static_cast<Violation>(violation), accumulation_steps};
      }));

  py::class_<Program>(module, "Program")
      .def(py::init<>())
      .def("add", [](Program& program, int kind, int rows, std::vector<int> inputs, bool mean, bool from_logits,
                     bool log_gradient, int scale, std::int64_t patch_size, std::int64_t stride, double eps,
                     bool per_channel) {
        program.add(static_cast<TermKind>(kind), rows, std::move(inputs), mean, from_logits, log_gradient,
                    static_cast<ScaleRule>(scale), {patch_size, stride, eps, per_channel});
      });

  bind_cpu(module);
  geco::python::bind_model_kernels(module);
#if defined(GECO_CUDA)
  bind_cuda(module);
  geco::python::bind_cuda_model_kernels(module);
  module.attr("cuda_architectures") = GECO_CUDA_ARCHITECTURES;
  module.attr("cuda_version") = GECO_CUDA_VERSION;
#else
  module.attr("cuda_architectures") = py::none();
  module.attr("cuda_version") = py::none();
#endif
}

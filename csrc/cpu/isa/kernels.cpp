// The table of kernels for one instruction set. CMake compiles this file once for each: GECO_INSTRUCTION_SET is its
// name, and the compiler may use its instructions. All that is included here has internal linkage: a function that the
// linker could merge with another file's copy would carry wide instructions to old processors.

#include "cpu/isa/kernels.h"

#include "cpu/isa/elementwise.inl"
#include "cpu/isa/models.inl"
#include "cpu/isa/patches/sweep.inl"

#if !defined(GECO_INSTRUCTION_SET)
#define GECO_INSTRUCTION_SET baseline
#endif

#define GECO_CONCATENATED(a, b) a##b
#define GECO_NAME_OF(set) GECO_CONCATENATED(set, _kernels)
#define GECO_QUOTED(text) #text
#define GECO_TEXT_OF(set) GECO_QUOTED(set)

namespace geco::cpu {

const KernelTable& GECO_NAME_OF(GECO_INSTRUCTION_SET)() {
#define GECO_TYPES(kernel) {kernel<float>, kernel<double>, kernel<Half>, kernel<BFloat16>}
#define GECO_TARGET_TYPES(Type, weighted, P)                                                                \
  {measure<Type, weighted, P, float>, measure<Type, weighted, P, double>, measure<Type, weighted, P, Half>, \
   measure<Type, weighted, P, BFloat16>}
#define GECO_ALL_TYPES(Type, weighted)                                                  \
  {GECO_TARGET_TYPES(Type, weighted, float), GECO_TARGET_TYPES(Type, weighted, double), \
   GECO_TARGET_TYPES(Type, weighted, Half), GECO_TARGET_TYPES(Type, weighted, BFloat16)},
#define GECO_MEASURE_TYPES(enumerator, Type) GECO_ALL_TYPES(Type, false)
#define GECO_WEIGHTED_TYPES(enumerator, Type) GECO_ALL_TYPES(Type, true)
#define GECO_FLAG(kernel, T) {kernel<T, false>, kernel<T, true>}
#define GECO_TYPES_AND_FLAG(kernel)                                                                           \
  {                                                                                                           \
    GECO_FLAG(kernel, float), GECO_FLAG(kernel, double), GECO_FLAG(kernel, Half), GECO_FLAG(kernel, BFloat16) \
  }
  static constexpr KernelTable table = {
      GECO_TEXT_OF(GECO_INSTRUCTION_SET),
      {GECO_MEASURES(GECO_MEASURE_TYPES)},
      {GECO_MEASURES(GECO_WEIGHTED_TYPES)},
      GECO_TYPES(scale),
      {sweep_scratch<float>, sweep_scratch<double>},
      {sweep_patches<float>, sweep_patches<double>},
      GECO_TYPES_AND_FLAG(gaussian),
      GECO_TYPES_AND_FLAG(gaussian_backward),
      GECO_TYPES(gates),
      GECO_TYPES(gates_backward),
      GECO_TYPES_AND_FLAG(coupling),
      GECO_TYPES_AND_FLAG(coupling_backward),
  };
  return table;
}

}  // namespace geco::cpu

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "cpu/isa/kernels.h"

namespace geco::cpu {

std::vector<const KernelTable*> supported_kernels() {
  std::vector<const KernelTable*> supported{&baseline_kernels()};
#if defined(GECO_X86_64)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2) supported.push_back(&avx2_kernels());
  if (avx512) supported.push_back(&avx512_kernels());
#endif
  return supported;
}

namespace {

const KernelTable& asked_for() {
  const std::vector<const KernelTable*> supported = supported_kernels();
  const char* const asked = std::getenv("GECO_EXT_CPU_CAPABILITY");
  if (asked == nullptr) return *supported.back();
  std::string names;
  for (const KernelTable* kernels : supported) {
    if (std::string(kernels->instruction_set) == asked) return *kernels;
    names += (names.empty() ? "" : ", ") + std::string(kernels->instruction_set);
  }
  throw std::invalid_argument("environment variable GECO_EXT_CPU_CAPABILITY: got '" + std::string(asked) +
                              "', expected one of those that this processor has: " + names);
}

}  // namespace

const KernelTable& kernels() {
  static const KernelTable& chosen = asked_for();
  return chosen;
}

}  // namespace geco::cpu

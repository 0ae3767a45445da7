#include <cstdlib>
#include <cstring>

#include "cpu/isa/kernels.h"

namespace geco::cpu {
namespace {

const KernelTable& widest() {
#if defined(GECO_X86_64)
  const char* asked = std::getenv("GECO_EXT_CPU_CAPABILITY");
  const auto allowed = [asked](const char* name) { return asked == nullptr || std::strcmp(asked, name) == 0; };
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && allowed("avx512")) return avx512_kernels();
  if (avx2 && (allowed("avx2") || allowed("avx512"))) return avx2_kernels();
#endif
  return baseline_kernels();
}

}  // namespace

const KernelTable& kernels() {
  static const KernelTable& chosen = widest();
  return chosen;
}

}  // namespace geco::cpu

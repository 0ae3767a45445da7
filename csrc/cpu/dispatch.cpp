#include <cstdlib>
#include <cstring>

#include "cpu/model_rows.h"
#include "cpu/run.h"

namespace geco::cpu {
namespace {

struct Tables {
  const RunTable& runs;
  const ModelTable& models;
};

Tables choose() {
#if defined(GECO_X86_64)
  const char* asked = std::getenv("GECO_EXT_CPU_CAPABILITY");
  const auto allowed = [asked](const char* name) { return asked == nullptr || std::strcmp(asked, name) == 0; };
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && allowed("avx512")) return {avx512_table(), avx512_models()};
  if (avx2 && (allowed("avx2") || allowed("avx512"))) return {avx2_table(), avx2_models()};
#endif
  return {baseline_table(), baseline_models()};
}

const Tables& tables() {
  static const Tables chosen = choose();
  return chosen;
}

}  // namespace

const RunTable& run_table() { return tables().runs; }
const ModelTable& model_table() { return tables().models; }

}  // namespace geco::cpu

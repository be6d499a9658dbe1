// AVX-512 (F, BW, DQ, VL): Intel since Skylake-X, AMD since Zen 4.
#include "table.h"

namespace effnet {
static bool supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
const Kernels kAvx512Kernels = avx512::make_table("avx512", supported);
}  // namespace effnet

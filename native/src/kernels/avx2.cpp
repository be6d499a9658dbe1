// AVX2 with FMA: Intel since Haswell, AMD since Zen.
#include "table.h"

namespace effnet {
static bool supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
const Kernels kAvx2Kernels = avx2::make_table("avx2", supported);
}  // namespace effnet

// Any machine: the compiler's vectors of four floats.
#include "table.h"

namespace effnet {
static bool supported() { return true; }
const Kernels kPortableKernels = portable::make_table("portable", supported);
}  // namespace effnet

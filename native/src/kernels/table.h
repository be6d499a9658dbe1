// The table of kernels of the instruction set that this file is compiled for.
#pragma once

#include <type_traits>

#include "depthwise.h"
#include "gemm.h"
#include "vectors.h"

namespace effnet::EFFNET_ISA {

constexpr Kernels make_table(const char* name, bool (*supported)()) {
  return {name,
          kLanes,
          kLanes == 16 ? 8 : 0,
          kMaxVectors,
          supported,
          gemm,
          depthwise,
          accumulate,
          gate,
          activate_values,
          scale_columns,
          scale_rows,
          add,
          normalize<uint8_t>,
          normalize<float>};
}

}  // namespace effnet::EFFNET_ISA

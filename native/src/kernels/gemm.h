// Products of matrices whose finished tiles never leave the registers before bias, activation and residual are applied.
//
// A tile is MR rows × NV vectors of accumulators: 14 × 2 of the 32 registers of AVX-512, 6 × 2 of AVX2's 16. For each
// of the `depth` columns of A it loads NV vectors of B and broadcasts MR values of A, for MR · NV multiply-adds: with
// 14 × 2, 16 loads for 28 multiply-adds, which keeps the multipliers busy on two loads a cycle. A is read in place
// (rows are pixels), B is packed so that a tile reads it in order.
#pragma once

#include <utility>

#include "../kernels.h"
#include "../vec.h"
#include "activation.h"

namespace effnet::EFFNET_ISA {

constexpr int kMaxVectors = 2;
// Rows of a tile by its vectors, a half counting as one
constexpr int kTileRows[kMaxVectors + 1] = {0, kRegisters == 32 ? 14 : 12, kRegisters == 32 ? 14 : 6};
constexpr int kMaxTileRows = 14;

// Half vectors have no activation: they occur only in projections, whose epilogues are kBias and kAdd.
template <int MR, int NV, bool HasHalf, Epilogue E, Activation Act>
void gemm_tile(const GemmCall& call, int row) {
  constexpr int half = HasHalf ? 1 : 0;
  Vec sum[MR][NV];
  Half half_sum[MR][half + 1];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) sum[i][v] = load(call.bias + v * kLanes);
    if constexpr (HasHalf) half_sum[i][0] = load<Half>(call.bias + NV * kLanes);
  }
  const float* b = call.weights;
  const ptrdiff_t stride = call.a_stride, stride3 = 3 * stride, stride5 = 5 * stride;
  for (int tap = 0; tap < call.tap_count; ++tap) {
    // Two base pointers and multiples of 1, 2, 4 as addressing modes: fourteen row pointers would not fit the registers
    const float* low = call.taps[tap] + row * stride;
    const float* high = low + 7 * stride;
    for (int k = 0; k < call.depth; ++k) {
      Vec weights[NV];
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) weights[v] = load(b + v * kLanes);
      Half half_weights{};
      if constexpr (HasHalf) half_weights = load<Half>(b + NV * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) {
        const float* base = i >= 7 ? high : low;
        constexpr int kSeven = 7;
        const int j = i % kSeven;
        const ptrdiff_t offset = j == 3 ? stride3 : j == 5 ? stride5 : j == 6 ? 2 * stride3 : j * stride;
        const float a = base[offset];
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) sum[i][v] += a * weights[v];
        if constexpr (HasHalf) half_sum[i][0] += a * half_weights;
      }
      b += NV * kLanes + half * (kLanes / 2);
      ++low;
      ++high;
    }
  }
  if constexpr (E == Epilogue::kPool) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      Vec total = load(call.out + v * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) total += activate<Act>(sum[i][v], call.activation);
      store(call.out + v * kLanes, total);
    }
    return;
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) {
    float* out = call.out + (row + i) * call.out_stride;
    const float* residual = call.residual + (row + i) * call.out_stride;
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      Vec x = sum[i][v];
      if constexpr (E == Epilogue::kActivate || E == Epilogue::kActivateOut) x = activate<Act>(x, call.activation);
      if constexpr (E == Epilogue::kActivateOut) x *= call.activation.unscale;
      if (E == Epilogue::kAdd || (E == Epilogue::kActivateOut && call.residual)) x += load(residual + v * kLanes);
      store(out + v * kLanes, x);
    }
    if constexpr (HasHalf) {
      Half x = half_sum[i][0];
      if constexpr (E == Epilogue::kAdd) x += load<Half>(residual + NV * kLanes);
      store(out + NV * kLanes, x);
    }
  }
}

using GemmTile = void (*)(const GemmCall&, int row);

template <int NV, bool HasHalf, Epilogue E, Activation Act, size_t... MR>
GemmTile tile_of_rows(int rows, std::index_sequence<MR...>) {
  static const GemmTile tiles[] = {gemm_tile<static_cast<int>(MR) + 1, NV, HasHalf, E, Act>...};
  return tiles[rows - 1];
}

template <Epilogue E, Activation Act>
GemmTile find_tile(int rows, int vectors, bool half) {
  if (half) {
    if constexpr (E == Epilogue::kBias || E == Epilogue::kAdd)
      return tile_of_rows<1, true, E, Act>(rows, std::make_index_sequence<kTileRows[2]>());
  }
  if (vectors == 1) return tile_of_rows<1, false, E, Act>(rows, std::make_index_sequence<kTileRows[1]>());
  return tile_of_rows<2, false, E, Act>(rows, std::make_index_sequence<kTileRows[2]>());
}

template <Epilogue E, Activation Act>
void gemm_with(const GemmCall& call, int rows) {
  const int vectors = call.width / kLanes;
  const bool half = call.width % kLanes != 0;
  const int most = kTileRows[vectors + half], tiles = (rows + most - 1) / most;
  const int quotient = rows / tiles,
            longer = rows % tiles;  // tiles of nearly equal height: a last one of 1 row is slow
  const GemmTile tall = longer ? find_tile<E, Act>(quotient + 1, vectors, half) : nullptr;
  const GemmTile low = find_tile<E, Act>(quotient, vectors, half);
  int row = 0;
  for (int i = 0; i < tiles; ++i) {
    (i < longer ? tall : low)(call, row);
    row += quotient + (i < longer);
  }
}

template <Epilogue E>
void gemm_activated(const GemmCall& call, int rows) {
  if (call.activation.kind == Activation::kSilu)
    gemm_with<E, Activation::kSilu>(call, rows);
  else
    gemm_with<E, Activation::kClamp>(call, rows);
}

inline void gemm(const GemmCall& call, int rows) {
  if (rows <= 0) return;
  switch (call.epilogue) {
    case Epilogue::kBias:
      return gemm_with<Epilogue::kBias, Activation::kClamp>(call, rows);
    case Epilogue::kAdd:
      return gemm_with<Epilogue::kAdd, Activation::kClamp>(call, rows);
    case Epilogue::kActivate:
      return gemm_activated<Epilogue::kActivate>(call, rows);
    case Epilogue::kActivateOut:
      return gemm_activated<Epilogue::kActivateOut>(call, rows);
    case Epilogue::kPool:
      return gemm_activated<Epilogue::kPool>(call, rows);
  }
}

}  // namespace effnet::EFFNET_ISA

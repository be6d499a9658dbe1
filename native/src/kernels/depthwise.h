// Depthwise convolution of one row, followed by its activation and, for squeeze-excite, the sums over the row.
//
// A tile is TW output columns of one vector of channels. For each kernel row it keeps the K weights in registers and
// reads every input column once: (TW − 1) · stride + K loads for TW · K multiply-adds.
#pragma once

#include <utility>

#include "../kernels.h"
#include "../vec.h"
#include "activation.h"

namespace effnet::EFFNET_ISA {

constexpr int kMaxColumns = 8;

template <int K, int S, int TW, Activation Act>
void depthwise_tile(const DepthwiseCall& call, int channel, int column) {
  const float* weights = call.weights + channel / kUnit * kUnit * K * K + channel % kUnit;
  Vec sum[TW];
#pragma GCC unroll 8
  for (int i = 0; i < TW; ++i) sum[i] = load(call.bias + channel);
#pragma GCC unroll 1
  for (int ky = call.first_tap; ky < call.last_tap; ++ky) {
    const float* x = call.rows[ky] + channel + static_cast<ptrdiff_t>(column) * S * call.row_stride;
    Vec w[K];
#pragma GCC unroll 5
    for (int kx = 0; kx < K; ++kx) w[kx] = load(weights + (ky * K + kx) * kUnit);
#pragma GCC unroll 20
    for (int ix = 0; ix < (TW - 1) * S + K; ++ix) {
      const Vec value = load(x);
      x += call.row_stride;
#pragma GCC unroll 5
      for (int kx = 0; kx < K; ++kx) {
        const int i = ix - kx;
        if (i >= 0 && i % S == 0 && i / S < TW) sum[i / S] += value * w[kx];
      }
    }
  }
  float* out = call.out + channel + column * call.out_stride;
  Vec total{};
  if (call.sums) total = load(call.sums + channel);
#pragma GCC unroll 8
  for (int i = 0; i < TW; ++i) {
    const Vec y = activate<Act>(sum[i], call.activation);
    total += y;
    store(out + i * call.out_stride, y);
  }
  if (call.sums) store(call.sums + channel, total);
}

// Any other kernel: no published network has one, so this is plain.
template <Activation Act>
void depthwise_any(const DepthwiseCall& call, int channel) {
  const int k = call.kernel;
  const float* weights = call.weights + channel / kUnit * kUnit * k * k + channel % kUnit;
  for (int column = 0; column < call.columns; ++column) {
    Vec sum = load(call.bias + channel);
    for (int ky = call.first_tap; ky < call.last_tap; ++ky)
      for (int kx = 0; kx < k; ++kx)
        sum += load(call.rows[ky] + channel + (static_cast<ptrdiff_t>(column) * call.stride + kx) * call.row_stride) *
               load(weights + (ky * k + kx) * kUnit);
    const Vec y = activate<Act>(sum, call.activation);
    store(call.out + channel + column * call.out_stride, y);
    if (call.sums) store(call.sums + channel, load(call.sums + channel) + y);
  }
}

using DepthwiseTile = void (*)(const DepthwiseCall&, int channel, int column);

template <int K, int S, Activation Act, size_t... TW>
DepthwiseTile tile_of_columns(int columns, std::index_sequence<TW...>) {
  static const DepthwiseTile tiles[] = {depthwise_tile<K, S, static_cast<int>(TW) + 1, Act>...};
  return tiles[columns - 1];
}

template <int K, int S, Activation Act>
void depthwise_with(const DepthwiseCall& call) {
  constexpr int most = kRegisters == 32 ? 8 : (K == 3 ? 8 : 6);
  const int tiles = (call.columns + most - 1) / most;
  const int quotient = call.columns / tiles, longer = call.columns % tiles;
  const auto sizes = std::make_index_sequence<most>();
  const DepthwiseTile wide = longer ? tile_of_columns<K, S, Act>(quotient + 1, sizes) : nullptr;
  const DepthwiseTile narrow = tile_of_columns<K, S, Act>(quotient, sizes);
  for (int channel = 0; channel < call.width; channel += kLanes) {
    int column = 0;
    for (int i = 0; i < tiles; ++i) {
      (i < longer ? wide : narrow)(call, channel, column);
      column += quotient + (i < longer);
    }
  }
}

template <Activation Act>
void depthwise_activated(const DepthwiseCall& call) {
  if (call.kernel == 3 && call.stride == 1) return depthwise_with<3, 1, Act>(call);
  if (call.kernel == 3 && call.stride == 2) return depthwise_with<3, 2, Act>(call);
  if (call.kernel == 5 && call.stride == 1) return depthwise_with<5, 1, Act>(call);
  if (call.kernel == 5 && call.stride == 2) return depthwise_with<5, 2, Act>(call);
  for (int channel = 0; channel < call.width; channel += kLanes) depthwise_any<Act>(call, channel);
}

inline void depthwise(const DepthwiseCall& call) {
  if (call.activation.kind == Activation::kSilu)
    depthwise_activated<Activation::kSilu>(call);
  else
    depthwise_activated<Activation::kClamp>(call);
}

}  // namespace effnet::EFFNET_ISA

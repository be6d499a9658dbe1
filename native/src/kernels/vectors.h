// The small loops around the products: squeeze-excite, scaling by its gates, sums, and normalizing pixels.
#pragma once

#include "../kernels.h"
#include "../vec.h"
#include "activation.h"

namespace effnet::EFFNET_ISA {

inline void accumulate(const float* values, int channels, const float* weights, int width, float* out) {
  for (int j = 0; j < width; j += kLanes) {
    Vec sums[4] = {load(out + j), Vec{}, Vec{}, Vec{}};  // four chains hide the latency of the multiply-adds
    int c = 0;
    for (; c + 4 <= channels; c += 4)
      for (int i = 0; i < 4; ++i) sums[i] += values[c + i] * load(weights + static_cast<ptrdiff_t>(c + i) * width + j);
    for (; c < channels; ++c) sums[0] += values[c] * load(weights + static_cast<ptrdiff_t>(c) * width + j);
    store(out + j, (sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
}

inline void gate(const float* squeezed, int count, const float* weights, const float* bias, int units, float* gates) {
  constexpr int vectors = kUnit / kLanes;
  const ptrdiff_t step = static_cast<ptrdiff_t>(count) * kUnit;
  int unit = 0;
  const auto several = [&](auto number) {
    constexpr int n = decltype(number)::value;
    for (; unit + n <= units; unit += n) {
      Vec sums[n][vectors];
      for (int i = 0; i < n; ++i)
        for (int v = 0; v < vectors; ++v) sums[i][v] = load(bias + (unit + i) * kUnit + v * kLanes);
      const float* row = weights + unit * step;
      for (int j = 0; j < count; ++j)
        for (int i = 0; i < n; ++i)
          for (int v = 0; v < vectors; ++v) sums[i][v] += squeezed[j] * load(row + i * step + j * kUnit + v * kLanes);
      for (int i = 0; i < n; ++i)
        for (int v = 0; v < vectors; ++v) store(gates + (unit + i) * kUnit + v * kLanes, sigmoid(sums[i][v]));
    }
  };
  several(std::integral_constant<int, kLanes == 16 ? 4 : 2>());
  several(std::integral_constant<int, 1>());
}

inline void activate_values(float* values, int count, const ActivationCall& call) {
  for (int i = 0; i < count; i += kLanes) {
    const Vec x = load(values + i);
    store(values + i, call.kind == Activation::kSilu ? x * sigmoid(x) : clamp(x, call.low, call.high));
  }
}

inline void scale_columns(float* map, int rows, ptrdiff_t stride, int first, int last, const float* gates) {
  for (int row = 0; row < rows; ++row, map += stride)
    for (int c = first; c < last; c += kLanes) store(map + c, load(map + c) * load(gates + c));
}

inline void scale_rows(const float* weights, int rows, int width, const float* gates, float* out) {
  for (int row = 0; row < rows; ++row, weights += width, out += width) {
    const float factor = gates[row];
    int c = 0;
    for (; c + kLanes <= width; c += kLanes) store(out + c, factor * load(weights + c));
    if (c < width) store(out + c, factor * load<Half>(weights + c));
  }
}

inline void add(float* out, const float* values, int count) {
  for (int i = 0; i < count; i += kLanes) store(out + i, load(out + i) + load(values + i));
}

template <class T>
void normalize(const T* pixels, int columns, int channels, const float* scale, const float* shift, float* out) {
  // Written for three channels so that the compiler unrolls it; other counts take the loop below
  if (channels == 3) {
    for (int x = 0; x < columns; ++x)
      for (int c = 0; c < 3; ++c) out[3 * x + c] = static_cast<float>(pixels[3 * x + c]) * scale[c] + shift[c];
    return;
  }
  for (int x = 0; x < columns; ++x)
    for (int c = 0; c < channels; ++c, ++pixels, ++out) *out = static_cast<float>(*pixels) * scale[c] + shift[c];
}

}  // namespace effnet::EFFNET_ISA

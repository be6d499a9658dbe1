// Activations on registers.
//
// SiLU works on scaled values. With s = kSiluScale = −16 / ln 2, a convolution whose weights and bias are multiplied by
// s yields s·x, from which exp(−x) = 2^(s·x / 16) needs no further multiplication; the result is s·silu(x), and the
// next layer's weights are divided by s. That saves one of about ten instructions for every activated value.
#pragma once

#include "../kernels.h"
#include "../vec.h"

namespace effnet::EFFNET_ISA {

// 2^(t / 16), to 4e-7 of it, for t within ±2008 (where it neither overflows nor becomes a denormal).
EFFNET_INLINE Vec exp2_sixteenths(Vec t) {
  const Vec magic = splat(12582912.0f);  // 1.5 · 2^23: the sum has the integer in its low bits
#if defined(__AVX512F__)
  // t = 16 n + j + r: 2^n by adding to the exponent, 2^(j/16) from a table of sixteen, 2^(r/16) by a parabola. Entry j
  // is the bits of 2^(j/16) less j << 19, so that one addition of (16 n + j) << 19 completes it.
  alignas(64) static const uint32_t table[16] = {0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0, 0x3f76f532,
                                                 0x3f75fed7, 0x3f75583f, 0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c,
                                                 0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d};
  const Vec rounded = t + magic;
  const Vec r = t - (rounded - magic);
  const __m512i whole = _mm512_castps_si512(rounded);
  const __m512i entry = _mm512_permutexvar_epi32(whole, _mm512_load_si512(table));
  const Vec power = _mm512_castsi512_ps(_mm512_add_epi32(entry, _mm512_slli_epi32(whole, 19)));
  return power * (1.0f + r * (0.04332424f + r * 9.3839e-4f));
#else
  const Vec octaves = t * 0.0625f;
  const Vec rounded = octaves + magic;
  const Vec f = octaves - (rounded - magic);  // −0.5 … 0.5
  const Vec power =
      1.0f + f * (0.69314698f + f * (0.24022242f + f * (0.05550734f + f * (0.00967151f + f * 0.00132647f))));
  return (Vec)((Int)power + ((Int)rounded << 23));
#endif
}

EFFNET_INLINE Vec clamp(Vec x, float low, float high) { return min(max(x, splat(low)), splat(high)); }

// s·x -> s·silu(x)
EFFNET_INLINE Vec scaled_silu(Vec x) { return x * reciprocal(1.0f + exp2_sixteenths(clamp(x, -2008.0f, 2008.0f))); }

EFFNET_INLINE Vec sigmoid(Vec x) {
  return reciprocal(1.0f + exp2_sixteenths(clamp(x * kSiluScale, -2008.0f, 2008.0f)));
}

template <Activation Kind>
EFFNET_INLINE Vec activate(Vec x, const ActivationCall& call) {
  if constexpr (Kind == Activation::kSilu) return scaled_silu(x);
  return clamp(x, call.low, call.high);
}

}  // namespace effnet::EFFNET_ISA

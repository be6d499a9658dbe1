// A thin vector of float32, one per instruction set: GCC's and Clang's vector extensions, and intrinsics only where the
// compiler does not find the instruction. Included by the kernel files alone, each compiled for its instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#define EFFNET_INLINE inline __attribute__((always_inline))

// Each instruction set has its own namespace: two inline functions of the same name would be merged by the linker, and
// the survivor might use instructions that this machine lacks.
#if defined(__AVX512F__)
#define EFFNET_ISA avx512
#elif defined(__AVX2__)
#define EFFNET_ISA avx2
#else
#define EFFNET_ISA portable
#endif

namespace effnet::EFFNET_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kRegisters = 16;
#else
constexpr int kLanes = 4;  // SSE2 and NEON
constexpr int kRegisters = 16;
#endif

template <int Lanes>
struct Types {
  typedef float Vec __attribute__((vector_size(4 * Lanes), may_alias));
  typedef float Unaligned __attribute__((vector_size(4 * Lanes), aligned(4), may_alias));
  typedef int32_t Int __attribute__((vector_size(4 * Lanes), may_alias));
};

using Vec = Types<kLanes>::Vec;
using Int = Types<kLanes>::Int;
using Half = Types<kLanes / 2>::Vec;  // for the last 8 of, say, 24 channels

template <class V = Vec>
EFFNET_INLINE V load(const float* from) {
  constexpr int lanes = sizeof(V) / 4;
  return *reinterpret_cast<const typename Types<lanes>::Unaligned*>(from);
}

template <class V>
EFFNET_INLINE void store(float* to, V value) {
  constexpr int lanes = sizeof(V) / 4;
  *reinterpret_cast<typename Types<lanes>::Unaligned*>(to) = value;
}

template <class V = Vec>
EFFNET_INLINE V splat(float value) {
  return value - V{};
}

EFFNET_INLINE Vec min(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}

EFFNET_INLINE Vec max(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

// 1 / d to float32's precision.
EFFNET_INLINE Vec reciprocal(Vec d) {
#if defined(__AVX512F__)
  // 14 bits, then one step of Newton's method: a third of the time of a division
  const Vec r = _mm512_rcp14_ps(d);
  return r * (2.0f - d * r);
#else
  return 1.0f / d;
#endif
}

}  // namespace effnet::EFFNET_ISA

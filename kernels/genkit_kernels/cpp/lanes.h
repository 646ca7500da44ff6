// Sixteen floats at a time, in GCC's and Clang's portable vectors; AVX-512 by name where it helps.
#pragma once

#include <c10/util/BFloat16.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace genkit {

using c10::BFloat16;

constexpr int kLanes = 16;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));

inline Floats load(const float* from) {
  Floats x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

inline Floats all(float value) {
  return Floats{} + value;
}

inline void store(float* to, Floats x) {
  std::memcpy(to, &x, sizeof x);
}

// Larger of each pair; b where either is NaN.
inline Floats larger(Floats a, Floats b) {
#if defined(__AVX512F__)
  return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#else
  return a > b ? a : b;
#endif
}

inline float sum(Floats x) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)x);
#else
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += x[i];
  return total;
#endif
}

// Of lanes without NaN, as `larger` leaves them.
inline float largest(Floats x) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)x);
#else
  float top = -kInfinity;
  for (int i = 0; i < kLanes; ++i) top = x[i] > top ? x[i] : top;
  return top;
#endif
}

// 2^x for |x| <= 1/2, minimax: relative error 7.5e-5 where bfloat16 rounds it, else 2e-9.
template <bool exact>
inline Floats power_of_part(Floats x) {
  if constexpr (exact) {
    Floats y = all(1.534001895e-4f) * x + 1.340026173e-3f;
    y = y * x + 9.618508149e-3f;
    y = y * x + 5.550327616e-2f;
    y = y * x + 2.402264670e-1f;
    y = y * x + 6.931472066e-1f;
    return y * x + 1.0f;
  }
  Floats y = all(5.517166737e-2f) * x + 2.426111344e-1f;
  y = y * x + 6.932609871e-1f;
  return y * x + 9.999280723e-1f;
}

// 2^x for x up to 128; 0 below -200, -inf included; NaN stays.
template <bool exact>
inline Floats exp2(Floats x) {
#if defined(__AVX512F__)
  __m512 y = _mm512_max_ps(_mm512_set1_ps(-200.0f), (__m512)x);
  __m512 whole = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  Floats part = power_of_part<exact>((Floats)_mm512_sub_ps(y, whole));
  return (Floats)_mm512_scalef_ps((__m512)part, whole);
#else
  const Floats magic = all(12582912.0f);  // 1.5 * 2^23: its low bits hold the whole number
  Floats y = x < all(-126.0f) ? all(-126.0f) : x;
  Floats shifted = y + magic;
  Floats part = power_of_part<exact>(y - (shifted - magic));
  Floats power = (Floats)((Ints)part + ((Ints)shifted << 23));
  power = x < all(-126.0f) ? all(0.0f) : power;
  return x == x ? power : x;
#endif
}

// exp(scale s - lse) for a logit s. Float32 takes the small difference before it goes to base 2;
// bfloat16 saves the product: there lse is in base 2 already, as `base_2` leaves it.
template <bool exact>
inline Floats probability(Floats s, Floats lse, float scale) {
  if constexpr (exact) return exp2<true>((s * scale - lse) * kLog2E);
  return exp2<false>(s * (scale * kLog2E) - lse);
}

template <bool exact>
inline float base_2(float lse) {
  return exact ? lse : lse * kLog2E;
}

// ---- bfloat16 -------------------------------------------------------------------------------

// The bits of x rounded to nearest even, in the low half of each lane.
inline Ints rounded(Floats x) {
  Ints bits = (Ints)x;
  Ints up = bits + 0x7FFF + ((bits >> 16) & 1);
  Ints nan = (bits >> 16) | 0x40;
  return (x == x ? up >> 16 : nan) & 0xFFFF;
}

inline void store(BFloat16* to, Floats x) {
#if defined(__AVX512BF16__)
  __m256bh y = _mm512_cvtneps_pbh((__m512)x);
  std::memcpy(static_cast<void*>(to), &y, sizeof y);
#else
  Ints bits = rounded(x);
  uint16_t y[kLanes];
  for (int i = 0; i < kLanes; ++i) y[i] = static_cast<uint16_t>(bits[i]);
  std::memcpy(static_cast<void*>(to), y, sizeof y);
#endif
}

// a and b interleaved: a0 b0 a1 b1 ...
inline void store_pairs(BFloat16* to, Floats a, Floats b) {
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
  __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)a));
  __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)b));
  _mm512_storeu_si512(to, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
#else
  Ints bits = rounded(a) | (rounded(b) << 16);
  std::memcpy(static_cast<void*>(to), &bits, sizeof bits);
#endif
}

inline Floats load(const BFloat16* from) {
  uint16_t bits[kLanes];
  std::memcpy(bits, static_cast<const void*>(from), sizeof bits);
  Ints wide;
  for (int i = 0; i < kLanes; ++i) wide[i] = static_cast<int32_t>(bits[i]) << 16;
  return (Floats)wide;
}

}  // namespace genkit

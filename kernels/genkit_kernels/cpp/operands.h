// Matrix products and their operands. The right operand of a bfloat16 product holds two
// neighbouring rows interleaved (VNNI), which for keys as columns is a transposition of pairs.
#pragma once

#include "problem.h"

namespace genkit {

// C (m, n) = A (m, k) B (k, n), or C += A B; row-major, leading dimensions lda, ldb, ldc.
inline void product(int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb, int64_t ldc,
                    bool add, const float* a, const float* b, float* c) {
  at::native::cpublas::brgemm(m, n, k, lda, ldb, ldc, add, a, b, c, false);
}

inline void product(int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb, int64_t ldc,
                    bool add, const BFloat16* a, const BFloat16* b, float* c) {
  at::native::cpublas::brgemm(m, n, k, lda, ldb, ldc, add, a, b, c, true);
}

// `valid` rows of a tensor, then zeros, as a dense (width, dim) at `to` with leading dimension ld.
template <typename T>
void gather(const Problem& p, const Rows& from, Head at, int64_t slot, int64_t valid,
            int64_t width, T* to, int64_t ld) {
  for (int64_t i = 0; i < valid; ++i)
    std::memcpy(static_cast<void*>(to + i * ld), row<T>(from, at.b, at.h, p.order[slot + i]),
                p.dim * sizeof(T));
  for (int64_t i = valid; i < width; ++i)
    std::memset(static_cast<void*>(to + i * ld), 0, p.dim * sizeof(T));
}

// Rows (width, dim) as the right operand (dim, width): keys become columns.
template <typename T>
void pack_columns(const T* rows, int64_t width, int64_t dim, T* to) {
  auto source = reinterpret_cast<const uint32_t*>(rows);
  auto target = reinterpret_cast<uint32_t*>(to);
  int64_t words = dim * sizeof(T) / 4;
  for (int64_t j = 0; j < width; j += kLanes)
    for (int64_t w = 0; w < words; ++w)
      for (int64_t i = 0; i < kLanes; ++i)
        target[w * width + j + i] = source[(j + i) * words + w];
}

// Rows (width, dim) as the right operand (width, dim).
inline void pack_rows(const float* rows, int64_t width, int64_t dim, float* to) {
  std::memcpy(to, rows, width * dim * sizeof(float));
}

inline void pack_rows(const BFloat16* rows, int64_t width, int64_t dim, BFloat16* to) {
  auto source = reinterpret_cast<const uint16_t*>(rows);
  auto target = reinterpret_cast<uint32_t*>(to);
  for (int64_t j = 0; j < width; j += 2) {
    const uint16_t *a = source + j * dim, *b = a + dim;
    for (int64_t d = 0; d < dim; ++d)
      target[j / 2 * dim + d] = a[d] | static_cast<uint32_t>(b[d]) << 16;
  }
}

// Rows (width, dim) as the left operand (dim, width).
template <typename T>
void transpose(const T* rows, int64_t width, int64_t dim, T* to) {
  for (int64_t j = 0; j < width; j += kLanes)
    for (int64_t d = 0; d < dim; ++d)
      for (int64_t i = 0; i < kLanes; ++i) to[d * width + j + i] = rows[(j + i) * dim + d];
}

}  // namespace genkit

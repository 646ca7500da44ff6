// One problem as Python hands it over, its tiles, and what the kernels share.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "lanes.h"

namespace genkit {

// A tensor (batch, heads, tokens, dim): strides in elements, the last dimension dense.
struct Rows {
  void* data;
  int64_t batch, head, token;
};

// Kept equal to `native.Problem` in Python.
struct Problem {
  int64_t batch, heads, tokens, dim, blocks, block_size;
  const int64_t *order, *lens, *offsets, *ids;
  double scale;
  Rows q, k, v, o, tq, tk, tv, t_o, d_o, dq, dk, dv;
  float* lse;  // (batch, heads, tokens), dense
};

template <typename T>
T* row(const Rows& x, int64_t b, int64_t h, int64_t token) {
  return static_cast<T*>(x.data) + b * x.batch + h * x.head + token * x.token;
}

// Which head of which row of the batch.
struct Head {
  int64_t b, h;
};

inline int64_t round_up(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

// Blocks cut into equal tiles of at most `most` slots, `width` a multiple of 32 (or 16).
struct Tiles {
  const Problem& p;
  int64_t per_block, width;

  Tiles(const Problem& p, int64_t most, int64_t unit)
      : p(p),
        per_block((p.block_size + most - 1) / most),
        width(round_up((p.block_size + per_block - 1) / per_block, unit)) {}

  int64_t count() const {
    return p.blocks * per_block;
  }
  int64_t block(int64_t tile) const {
    return tile / per_block;
  }
  int64_t first_slot(int64_t tile) const {
    return block(tile) * p.block_size + tile % per_block * width;
  }
  // Valid slots of a tile in batch row b.
  int64_t valid(int64_t b, int64_t tile) const {
    int64_t rest = p.lens[b * p.blocks + block(tile)] - tile % per_block * width;
    return std::clamp<int64_t>(rest, 0, width);
  }
};

// Memory for n elements on a cache line's boundary, not initialised.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t n) {
    size_t bytes = round_up(std::max<int64_t>(n, 1) * sizeof(T), 64);
    memory_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
    if (!memory_) throw std::bad_alloc();
  }
  T* at(int64_t i = 0) const {
    return memory_.get() + i;
  }

 private:
  struct Free {
    void operator()(T* x) const {
      std::free(x);
    }
  };
  std::unique_ptr<T, Free> memory_;
};

// f(thread, i) for i below n, each i once, by whichever thread is free; f's results must not depend
// on the thread.
template <typename F>
void each(int64_t n, const F& f) {
  std::atomic<int64_t> next{0};
  int64_t threads = std::min<int64_t>(at::get_num_threads(), n);
  at::parallel_for(0, threads, 1, [&](int64_t thread, int64_t) {
    for (int64_t i; (i = next.fetch_add(1)) < n;) f(thread, i);
    at::native::cpublas::brgemm_release();
  });
}

}  // namespace genkit

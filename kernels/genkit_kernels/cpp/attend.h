// Forward, tangent, and both in one pass. Keys and values are packed once per head; a tile of
// queries walks its list of blocks with a running maximum, as flash attention does (2205.14135).
//
// With S = scale q k', P = exp(S - lse) and tS the tangent of S:
//   tangent of o = P tv + (P * tS) v - rowsum(P * tS) o
#pragma once

#include "operands.h"

namespace genkit {

enum class Mode { forward, tangent, both };

// Heads packed in at most so many bytes are one thread's work each; larger ones are all threads'.
constexpr int64_t kSmallHead = 4 << 20;

#ifndef GENKIT_QUERY_TILE
#define GENKIT_QUERY_TILE 128
#endif
#ifndef GENKIT_KEY_TILE
#define GENKIT_KEY_TILE 256
#endif

// What one thread works on.
template <typename T>
struct Scratch {
  Buffer<T> q, p, w, rows, k, v;  // k and v: the keys and values of a head, packed
  Buffer<float> s, ts, o, a, top, sum, moved, lse;

  Scratch(int64_t queries, int64_t keys, int64_t depth, int64_t dim)
      : q(queries * depth), p(queries * keys), w(queries * keys), rows(keys * dim),
        s(queries * keys), ts(queries * keys), o(queries * dim), a(queries * dim), top(queries),
        sum(queries), moved(queries), lse(queries) {}
};

template <typename T, Mode mode>
class Attend {
  static constexpr bool kTangent = mode != Mode::forward;
  static constexpr bool kForward = mode != Mode::tangent;
  static constexpr bool kExact = std::is_same_v<T, float>;

 public:
  explicit Attend(const Problem& p)
      : p_(p), queries_(p, GENKIT_QUERY_TILE, 16), keys_(p, GENKIT_KEY_TILE, 32), dim_(p.dim),
        depth_(kTangent ? 2 * dim_ : dim_), scaled_(static_cast<float>(p.scale) * kLog2E) {
    int64_t packed = keys_.count() * keys_.width * depth_;
    small_ = packed * int64_t(sizeof(T)) <= kSmallHead;
    for (int i = 0; i < at::get_num_threads(); ++i) {
      scratch_.emplace_back(queries_.width, keys_.width, depth_, dim_);
      if (i && !small_) continue;
      scratch_[i].k = Buffer<T>(packed);
      scratch_[i].v = Buffer<T>(packed);
    }
  }

  void run() {
    int64_t heads = p_.batch * p_.heads, threads = scratch_.size();
    int64_t whole = small_ ? heads - heads % threads : 0;
    each(whole, [&](int64_t thread, int64_t i) {
      Scratch<T>& my = scratch_[thread];
      Head at{i / p_.heads, i % p_.heads};
      for (int64_t tile = 0; tile < keys_.count(); ++tile) pack(at, tile, my, my);
      for (int64_t tile = 0; tile < queries_.count(); ++tile) attend(at, tile, my, my);
    });
    for (int64_t i = whole; i < heads; ++i) together({i / p_.heads, i % p_.heads});
  }

 private:
  // One head by all threads, its keys and values packed in the first one's memory.
  void together(Head at) {
    Scratch<T>& first = scratch_[0];
    each(keys_.count(), [&](int64_t thread, int64_t tile) {
      pack(at, tile, scratch_[thread], first);
    });
    // Text comes last and sees most: begin with it.
    each(queries_.count(), [&](int64_t thread, int64_t i) {
      attend(at, queries_.count() - 1 - i, scratch_[thread], first);
    });
  }

  T* packed(const Buffer<T>& x, int64_t tile) const {
    return x.at(tile * keys_.width * depth_);
  }

  void pack(Head at, int64_t tile, Scratch<T>& my, Scratch<T>& to) {
    int64_t valid = keys_.valid(at.b, tile), slot = keys_.first_slot(tile), half = keys_.width * dim_;
    if (!valid) return;
    auto take = [&](const Rows& from) {
      gather<T>(p_, from, at, slot, valid, keys_.width, my.rows.at(), dim_);
      return my.rows.at();
    };
    pack_columns(take(p_.k), keys_.width, dim_, packed(to.k, tile));
    pack_rows(take(p_.v), keys_.width, dim_, packed(to.v, tile));
    if constexpr (kTangent) {
      pack_columns(take(p_.tk), keys_.width, dim_, packed(to.k, tile) + half);
      pack_rows(take(p_.tv), keys_.width, dim_, packed(to.v, tile) + half);
    }
  }

  void attend(Head at, int64_t tile, Scratch<T>& my, const Scratch<T>& keys) {
    int64_t valid = queries_.valid(at.b, tile), rows = round_up(valid, 16);
    if (!valid) return;
    begin(at, queries_.first_slot(tile), valid, rows, my);
    int64_t block = queries_.block(tile);
    for (int64_t i = p_.offsets[block]; i < p_.offsets[block + 1]; ++i)
      for (int64_t part = 0; part < keys_.per_block; ++part)
        see(at, p_.ids[i] * keys_.per_block + part, rows, my, keys);
    for (int64_t i = 0; i < valid; ++i)
      finish(at, p_.order[queries_.first_slot(tile) + i], i, my);
  }

  // The left operand is [tq | q]: all of it against [k ; tk] gives tq k' + q tk'.
  void begin(Head at, int64_t slot, int64_t valid, int64_t rows, Scratch<T>& my) {
    gather<T>(p_, p_.q, at, slot, valid, rows, my.q.at(depth_ - dim_), depth_);
    if constexpr (kTangent) {
      gather<T>(p_, p_.tq, at, slot, valid, rows, my.q.at(), depth_);
      std::fill_n(my.a.at(), rows * dim_, 0.0f);
      std::fill_n(my.moved.at(), rows, 0.0f);
    }
    if constexpr (kForward) {
      std::fill_n(my.o.at(), rows * dim_, 0.0f);
      std::fill_n(my.sum.at(), rows, 0.0f);
      std::fill_n(my.top.at(), rows, -kInfinity);
    } else {
      const float* lse = p_.lse + (at.b * p_.heads + at.h) * p_.tokens;
      for (int64_t i = 0; i < rows; ++i)
        my.top.at()[i] = i < valid ? base_2<kExact>(lse[p_.order[slot + i]]) : 0.0f;
    }
  }

  void see(Head at, int64_t tile, int64_t rows, Scratch<T>& my, const Scratch<T>& keys) {
    int64_t valid = keys_.valid(at.b, tile), n = round_up(valid, 32), width = keys_.width;
    if (!valid) return;
    const T *k = packed(keys.k, tile), *v = packed(keys.v, tile), *tv = v + width * dim_;
    product(rows, n, dim_, depth_, width, width, false, my.q.at(depth_ - dim_), k, my.s.at());
    if constexpr (kTangent)
      product(rows, n, depth_, depth_, width, width, false, my.q.at(), k, my.ts.at());
    for (int64_t i = 0; i < rows; ++i) {
      std::fill(my.s.at(i * width + valid), my.s.at(i * width + n), -kInfinity);
      if constexpr (kForward) rescale(i, n, my);
      weigh(i, n, my);
    }
    if constexpr (kForward)
      product(rows, dim_, n, width, dim_, dim_, true, my.p.at(), v, my.o.at());
    if constexpr (kTangent) {
      product(rows, dim_, n, width, dim_, dim_, true, my.p.at(), tv, my.a.at());
      product(rows, dim_, n, width, dim_, dim_, true, my.w.at(), v, my.a.at());
    }
  }

  // Raise the running maximum of row i to that of its new logits.
  void rescale(int64_t i, int64_t n, Scratch<T>& my) {
    const float* s = my.s.at(i * keys_.width);
    Floats most = all(-kInfinity);
    for (int64_t j = 0; j < n; j += kLanes) most = larger(load(s + j), most);
    float &top = my.top.at()[i], now = std::max(top, largest(most) * scaled_);
    if (now == top) return;
    float factor = std::exp2(top - now);
    top = now;
    my.sum.at()[i] *= factor;
    float* o = my.o.at(i * dim_);
    for (int64_t d = 0; d < dim_; ++d) o[d] *= factor;
    if constexpr (kTangent) {
      my.moved.at()[i] *= factor;
      float* a = my.a.at(i * dim_);
      for (int64_t d = 0; d < dim_; ++d) a[d] *= factor;
    }
  }

  // P, and P * tS, of row i.
  void weigh(int64_t i, int64_t n, Scratch<T>& my) {
    const float *s = my.s.at(i * keys_.width), *ts = my.ts.at(i * keys_.width);
    T *p = my.p.at(i * keys_.width), *w = my.w.at(i * keys_.width);
    const Floats top = all(my.top.at()[i]);
    const float scaled = scaled_, scale = static_cast<float>(p_.scale);
    Floats total = all(0), moved = all(0);
    for (int64_t j = 0; j < n; j += kLanes) {
      Floats x = kForward ? exp2<kExact>(load(s + j) * scaled - top)
                          : probability<kExact>(load(s + j), top, scale);
      total += x;
      store(p + j, x);
      if constexpr (kTangent) {
        Floats y = x * load(ts + j) * scale;
        moved += y;
        store(w + j, y);
      }
    }
    if constexpr (kForward) my.sum.at()[i] += sum(total);
    if constexpr (kTangent) my.moved.at()[i] += sum(moved);
  }

  void finish(Head at, int64_t token, int64_t i, Scratch<T>& my) {
    T* o = row<T>(p_.o, at.b, at.h, token);
    float part = kForward ? 1 / my.sum.at()[i] : 1.0f;
    if constexpr (kTangent) {
      T* t_o = row<T>(p_.t_o, at.b, at.h, token);
      for (int64_t d = 0; d < dim_; d += kLanes) {
        Floats out = kForward ? load(my.o.at(i * dim_ + d)) * part : load(o + d);
        Floats change = load(my.a.at(i * dim_ + d)) - my.moved.at()[i] * out;
        store(t_o + d, change * part);
      }
    }
    if constexpr (kForward) {
      for (int64_t d = 0; d < dim_; d += kLanes)
        store(o + d, load(my.o.at(i * dim_ + d)) * part);
      p_.lse[(at.b * p_.heads + at.h) * p_.tokens + token] =
          static_cast<float>(my.top.at()[i] * M_LN2 + std::log(double(my.sum.at()[i])));
    }
  }

  const Problem& p_;
  Tiles queries_, keys_;
  int64_t dim_, depth_;
  float scaled_;
  bool small_;
  std::vector<Scratch<T>> scratch_;
};

}  // namespace genkit

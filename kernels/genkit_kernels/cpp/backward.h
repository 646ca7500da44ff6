// Gradients by recomputation, five products per pair of tiles (FlashAttention-2, 2307.08691, alg. 2).
//
// Everything is transposed, keys as rows, so that no tile is ever transposed: S' = k q', dP' = v do',
// dv += P' do, dk += dS' q and, with dS' written as a right operand too, dq' += k' dS'.
// A head belongs to one thread; the last heads, fewer than threads, are split by keys into parts
// whose dq are added in order. Either way the same threads give the same bits.
#pragma once

#include "operands.h"

namespace genkit {

#ifndef GENKIT_BACKWARD_TILE
#define GENKIT_BACKWARD_TILE 64
#endif

// All queries of one head, packed, and one tile of keys.
template <typename T>
struct Work {
  Buffer<T> q_columns, q_rows, do_columns, do_rows;
  Buffer<T> k, v, k_left, p, ds, ds_right, rows;
  Buffer<float> lse, delta, dq, dk, dv, s, dp;

  Work(int64_t slots, int64_t queries, int64_t keys, int64_t dim)
      : q_columns(slots * dim), q_rows(slots * dim), do_columns(slots * dim), do_rows(slots * dim),
        k(keys * dim), v(keys * dim), k_left(keys * dim), p(keys * queries), ds(keys * queries),
        ds_right(keys * queries), rows(queries * dim), lse(slots), delta(slots), dq(slots * dim),
        dk(keys * dim), dv(keys * dim), s(keys * queries), dp(keys * queries) {}
};

template <typename T>
class Backward {
  static constexpr bool kExact = std::is_same_v<T, float>;

 public:
  explicit Backward(const Problem& p)
      : p_(p), queries_(p, GENKIT_BACKWARD_TILE, 16), keys_(p, 256, 32), dim_(p.dim),
        slots_(queries_.count() * queries_.width), scale_(static_cast<float>(p.scale)) {
    turn_lists();
  }

  void run() {
    int64_t heads = p_.batch * p_.heads, threads = at::get_num_threads();
    int64_t whole = heads - heads % threads;
    std::vector<Work<T>> work;
    for (int64_t i = 0; i < threads; ++i)
      work.emplace_back(slots_, queries_.width, keys_.width, dim_);
    each(whole, [&](int64_t thread, int64_t i) {
      Head at{i / p_.heads, i % p_.heads};
      part(at, 0, keys_.count(), work[thread]);
      for (int64_t tile = 0; tile < queries_.count(); ++tile) give_dq(at, tile, work[thread]);
    });
    for (int64_t i = whole; i < heads; ++i) split({i / p_.heads, i % p_.heads}, work);
  }

 private:
  // seen_by_[begins_[j] : begins_[j + 1]]: query blocks that see key block j.
  void turn_lists() {
    int64_t n = p_.blocks, total = p_.offsets[n];
    begins_.assign(n + 1, 0);
    seen_by_.resize(total);
    for (int64_t i = 0; i < total; ++i) ++begins_[p_.ids[i] + 1];
    for (int64_t j = 0; j < n; ++j) begins_[j + 1] += begins_[j];
    std::vector<int64_t> next(begins_.begin(), begins_.end() - 1);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t at = p_.offsets[i]; at < p_.offsets[i + 1]; ++at)
        seen_by_[next[p_.ids[at]]++] = i;
  }

  // One head by all threads: keys in as many parts with equally many pairs of blocks.
  void split(Head at, std::vector<Work<T>>& work) {
    int64_t parts = work.size(), total = begins_.back();
    auto block = [&](int64_t i) {
      auto found = std::lower_bound(begins_.begin(), begins_.end(), total * i / parts);
      return i == parts ? p_.blocks : found - begins_.begin();
    };
    each(parts, [&](int64_t, int64_t i) {
      part(at, block(i) * keys_.per_block, block(i + 1) * keys_.per_block, work[i]);
    });
    each(queries_.count(), [&](int64_t, int64_t tile) {
      int64_t size = queries_.width * dim_;
      float* total = work[0].dq.at(tile * size);
      for (int64_t i = 1; i < parts; ++i) {
        const float* more = work[i].dq.at(tile * size);
        for (int64_t j = 0; j < size; ++j) total[j] += more[j];
      }
      give_dq(at, tile, work[0]);
    });
  }

  // All queries of one head against the key tiles from `begin` to `end`.
  void part(Head at, int64_t begin, int64_t end, Work<T>& my) {
    for (int64_t tile = 0; tile < queries_.count(); ++tile) take_queries(at, tile, my);
    for (int64_t tile = begin; tile < end; ++tile) keys(at, tile, my);
  }

  void take_queries(Head at, int64_t tile, Work<T>& my) {
    int64_t width = queries_.width, valid = queries_.valid(at.b, tile), place = tile * width * dim_;
    int64_t slot = queries_.first_slot(tile);
    if (!valid) return;
    gather<T>(p_, p_.q, at, slot, valid, width, my.rows.at(), dim_);
    pack_columns(my.rows.at(), width, dim_, my.q_columns.at(place));
    pack_rows(my.rows.at(), width, dim_, my.q_rows.at(place));
    gather<T>(p_, p_.d_o, at, slot, valid, width, my.rows.at(), dim_);
    pack_columns(my.rows.at(), width, dim_, my.do_columns.at(place));
    pack_rows(my.rows.at(), width, dim_, my.do_rows.at(place));
    std::fill_n(my.dq.at(place), width * dim_, 0.0f);
    std::fill_n(my.lse.at(tile * width), width, kInfinity);  // gives P = 0
    std::fill_n(my.delta.at(tile * width), width, 0.0f);
    const float* lse = p_.lse + (at.b * p_.heads + at.h) * p_.tokens;
    for (int64_t i = 0; i < valid; ++i) {
      int64_t token = p_.order[slot + i];
      const T* o = row<T>(p_.o, at.b, at.h, token);
      Floats total = all(0);
      for (int64_t d = 0; d < dim_; d += kLanes)
        total += load(o + d) * load(my.rows.at(i * dim_ + d));
      my.delta.at(tile * width)[i] = sum(total);
      my.lse.at(tile * width)[i] = base_2<kExact>(lse[token]);
    }
  }

  void keys(Head at, int64_t tile, Work<T>& my) {
    int64_t valid = keys_.valid(at.b, tile), width = keys_.width, slot = keys_.first_slot(tile);
    if (!valid) return;
    gather<T>(p_, p_.k, at, slot, valid, width, my.k.at(), dim_);
    gather<T>(p_, p_.v, at, slot, valid, width, my.v.at(), dim_);
    transpose(my.k.at(), width, dim_, my.k_left.at());
    std::fill_n(my.dk.at(), width * dim_, 0.0f);
    std::fill_n(my.dv.at(), width * dim_, 0.0f);
    int64_t block = keys_.block(tile);
    for (int64_t i = begins_[block]; i < begins_[block + 1]; ++i)
      for (int64_t part = 0; part < queries_.per_block; ++part) {
        int64_t query_tile = seen_by_[i] * queries_.per_block + part;
        if (queries_.valid(at.b, query_tile)) pair(query_tile, valid, my);
      }
    for (int64_t i = 0; i < valid; ++i) {
      T* dk = row<T>(p_.dk, at.b, at.h, p_.order[slot + i]);
      T* dv = row<T>(p_.dv, at.b, at.h, p_.order[slot + i]);
      for (int64_t d = 0; d < dim_; d += kLanes) {
        store(dk + d, load(my.dk.at(i * dim_ + d)) * scale_);
        store(dv + d, load(my.dv.at(i * dim_ + d)));
      }
    }
  }

  void pair(int64_t tile, int64_t valid, Work<T>& my) {
    int64_t m = queries_.width, n = round_up(valid, 32), place = tile * m * dim_;
    product(n, m, dim_, dim_, m, m, false, my.k.at(), my.q_columns.at(place), my.s.at());
    product(n, m, dim_, dim_, m, m, false, my.v.at(), my.do_columns.at(place), my.dp.at());
    for (int64_t j = 0; j < n; j += 2) weigh(j, valid, tile, my);
    const T* right = kExact ? my.ds.at() : my.ds_right.at();
    product(n, dim_, m, m, dim_, dim_, true, my.p.at(), my.do_rows.at(place), my.dv.at());
    product(n, dim_, m, m, dim_, dim_, true, my.ds.at(), my.q_rows.at(place), my.dk.at());
    product(dim_, m, n, keys_.width, m, m, true, my.k_left.at(), right, my.dq.at(place));
  }

  // P' and dS' of keys j and j + 1; 0 from `valid` on.
  void weigh(int64_t j, int64_t valid, int64_t tile, Work<T>& my) {
    int64_t m = queries_.width;
    const float *lse = my.lse.at(tile * m), *delta = my.delta.at(tile * m);
    for (int64_t i = 0; i < m; i += kLanes) {
      Floats ds[2];
      for (int64_t k = 0; k < 2; ++k) {
        int64_t place = (j + k) * m + i;
        Floats p = probability<kExact>(load(my.s.at(place)), load(lse + i), scale_);
        ds[k] = p * (load(my.dp.at(place)) - load(delta + i));
        if (j + k >= valid) p = ds[k] = all(0);
        store(my.p.at(place), p);
        store(my.ds.at(place), ds[k]);
      }
      if constexpr (!kExact) store_pairs(my.ds_right.at(j * m + 2 * i), ds[0], ds[1]);
    }
  }

  void give_dq(Head at, int64_t tile, const Work<T>& my) {
    int64_t m = queries_.width, valid = queries_.valid(at.b, tile);
    const float* dq = my.dq.at(tile * m * dim_);
    for (int64_t i = 0; i < valid; ++i) {
      T* to = row<T>(p_.dq, at.b, at.h, p_.order[queries_.first_slot(tile) + i]);
      for (int64_t d = 0; d < dim_; ++d)
        to[d] = static_cast<T>(dq[d * m + i] * scale_);
    }
  }

  const Problem& p_;
  Tiles queries_, keys_;
  int64_t dim_, slots_;
  float scale_;
  std::vector<int64_t> begins_, seen_by_;
};

}  // namespace genkit

// Entropy of rows as templates over a lane type; each instruction set includes this into its own translation unit.
//
// Arithmetic a vector of elements: a load, the maximum and one multiply-add in the first pass over a row, then a load
// and about 22 (AVX-512: 19) instructions in the second, in which the next row is fetched. The last step (two
// divisions, a logarithm) is taken for V::kWidth rows at once.
//
// A lane type V may bring its own form of each function template below that takes a V; the bits are the same.
#pragma once

#include <algorithm>
#include <limits>

#include "cpu/element.h"
#include "cpu/entropy_rank.h"
#include "entropy_math.h"

namespace dlp::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// The first `count` elements from x (no other is read), `fill` in the other lanes.
template <class V, class T>
inline V vload_part(const T* x, int64_t count, V fill) {
  alignas(64) float buffer[V::kWidth];
  fill.store(buffer);
  for (int64_t l = 0; l < count; ++l) buffer[l] = to_float(x[l]);
  return V::load(buffer);
}
// The tree of entropy_math.h over one vector.
template <class V>
inline float vtree(V a) {
  alignas(64) float part[V::kWidth];
  a.store(part);
  for (int half = V::kWidth / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) part[l] = vadd(part[l], part[l + half]);
  return part[0];
}
template <class V>
inline float vlargest(V a) {
  alignas(64) float part[V::kWidth];
  a.store(part);
  for (int half = V::kWidth / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) part[l] = vmax(part[l], part[l + half]);
  return part[0];
}
// add_term, and which lanes hold the largest element.
template <class V>
inline uint32_t vadd_terms(V x, V top, V& s, V& u) {
  add_term(x, top, s, u);
  return vequal_mask(x, top);
}
// n + 1 where a equals b.
template <class V>
inline V vcount_equal(V n, V a, V b) {
  return vadd(n, vwhere_zero(vsub(a, b), vset<V>(1.0f), vset<V>(0.0f)));
}
// column[j], j < classes: element j of V::kWidth rows, the first row again for those behind `rows`.
template <class V, class T>
inline void vcolumns(const T* x, int64_t stride, int64_t rows, int64_t classes, V* column) {
  alignas(64) float stage[kLanes * V::kWidth];
  for (int64_t r = 0; r < V::kWidth; ++r)
    for (int64_t j = 0; j < classes; ++j) stage[j * V::kWidth + r] = to_float(x[(r < rows ? r : 0) * stride + j]);
  for (int64_t j = 0; j < classes; ++j) column[j] = V::load(stage + j * V::kWidth);
}

// The tree over all 32 partial sums, which lie in kLanes / V::kWidth vectors.
template <class V>
inline float tree_of(V* part) {
  for (int half = kLanes / V::kWidth / 2; half > 0; half /= 2)
    for (int v = 0; v < half; ++v) part[v] = vadd(part[v], part[v + half]);
  return vtree(part[0]);
}

// Rows of at most kEnd (16, 32) classes: V::kWidth rows at once, one in each lane, so that no lane idles.
template <int kEnd, class V, class T>
void entropy_of_short_rows(const Logits& logits, int64_t begin, int64_t end, float* entropy, int32_t* top) {
  constexpr int64_t kRows = V::kWidth;
  const int64_t classes = logits.classes;
  const T* data = static_cast<const T*>(logits.data);
  V column[kLanes];
  alignas(64) float bits[kRows];
  alignas(64) float first[kRows];
  for (int64_t row = begin; row < end; row += kRows) {
    const int64_t rows = std::min(end - row, kRows);
    vcolumns(data + row * logits.row_stride, logits.row_stride, rows, classes, column);
    V best = column[0], bad = vmul(best, vset<V>(0.0f)), place = vset<V>(0.0f), number = place;
    for (int64_t j = 1; j < classes; ++j) {
      const V x = column[j];
      number = vadd(number, vset<V>(1.0f));
      bad = vfma(x, vset<V>(0.0f), bad);
      place = vwhere_less(best, x, number, place);
      best = vmax(x, best);
    }
    V s, u, ties = vset<V>(-1.0f);
    const auto leaf = [&](int j, V& s_of, V& u_of) {
      vadd_terms(column[j], best, s_of, u_of);
      ties = vcount_equal(ties, column[j], best);
    };
    tree_of_elements<kEnd, 1, 0>(static_cast<int>(classes), leaf, s, u);
    vwhere_zero(bad, entropy_bits(vadd(s, ties), u), vset<V>(kNan)).store(bits);  // `bad` is 0 or NaN
    vwhere_zero(bad, place, vset<V>(0.0f)).store(first);
    if (rows == kRows) {  // a loop of fixed length becomes a few vector stores
      for (int64_t r = 0; r < kRows; ++r) top[row + r] = static_cast<int32_t>(first[r]);
      for (int64_t r = 0; r < kRows; ++r) entropy[row + r] = bits[r];
    } else {
      for (int64_t r = 0; r < rows; ++r) entropy[row + r] = bits[r], top[row + r] = static_cast<int32_t>(first[r]);
    }
  }
}

// The largest element of a row; NaN where an element is not finite.
template <class V, class T>
inline float largest_of(const T* x, int64_t classes) {
  constexpr int kW = V::kWidth, kChains = 4;  // their latency would bound fewer
  V best[kChains], bad[kChains];
  for (int c = 0; c < kChains; ++c) best[c] = vset<V>(-kInfinity), bad[c] = vset<V>(0.0f);
  const auto take = [&](int c, V a) {
    best[c] = vmax(a, best[c]);
    bad[c] = vfma(a, vset<V>(0.0f), bad[c]);
  };
  int64_t j = 0;
  for (; j + kChains * kW <= classes; j += kChains * kW)
    for (int c = 0; c < kChains; ++c) take(c, V::load(x + j + c * kW));
  for (; j + kW <= classes; j += kW) take(0, V::load(x + j));
  if (j < classes) take(1, vload_part(x + j, classes - j, vset<V>(to_float(x[j]))));
  for (int c = 1; c < kChains; ++c) best[0] = vmax(best[c], best[0]), bad[0] = vadd(bad[0], bad[c]);
  const uint32_t fine = vequal_mask(bad[0], vset<V>(0.0f));
  return fine == (uint32_t{1} << kW) - 1 ? vlargest(best[0]) : kNan;
}

// Both sums of a longer row and the first place of its largest element. `next`: what to fetch meanwhile, or null.
template <class V, class T>
inline void sums_of_row(const T* x, int64_t classes, const T* next, float& s_row, float& u_row, int32_t& top) {
  constexpr int kW = V::kWidth, kV = kLanes / kW;
  constexpr int64_t kLine = 64 / sizeof(T);
  const float largest = largest_of<V>(x, classes);
  s_row = u_row = kNan;
  top = 0;
  if (largest != largest) return;
  s_row = u_row = 0.0f;
  const V peak = vset<V>(largest);
  int64_t ties = 0, place = -1;
  const auto note = [&](uint32_t equal, int64_t j) {
    if (equal == 0) [[likely]] return;
    if (place < 0) place = j + __builtin_ctz(equal);
    ties += __builtin_popcount(equal);
  };
  for (int64_t piece = 0; piece < classes; piece += kPiece) {
    const int64_t stop = std::min(piece + kPiece, classes), whole = piece + (stop - piece) / kLanes * kLanes;
    V s[kV], u[kV];
    for (int v = 0; v < kV; ++v) s[v] = u[v] = vset<V>(0.0f);
    for (int64_t j = piece; j < whole; j += kLanes) {
      if (next != nullptr)
        for (int64_t l = 0; l < kLanes; l += kLine) __builtin_prefetch(next + j + l);
      for (int v = 0; v < kV; ++v) note(vadd_terms(V::load(x + j + v * kW), peak, s[v], u[v]), j + v * kW);
    }
    for (int v = 0; v < kV && whole + v * kW < stop; ++v) {
      const int64_t j = whole + v * kW;
      const V a = stop - j >= kW ? V::load(x + j) : vload_part(x + j, stop - j, vset<V>(-kInfinity));
      note(vadd_terms(a, peak, s[v], u[v]), j);
    }
    s_row = vadd(s_row, tree_of(s));
    u_row = vadd(u_row, tree_of(u));
  }
  s_row = vadd(s_row, static_cast<float>(ties - 1));
  top = static_cast<int32_t>(place);
}

template <class V, class T>
void entropy_of_rows(const Logits& logits, int64_t begin, int64_t end, float* entropy, int32_t* top) {
  constexpr int64_t kRows = V::kWidth;
  if (logits.classes <= kLanes / 2)
    return entropy_of_short_rows<kLanes / 2, V, T>(logits, begin, end, entropy, top);
  if (logits.classes <= kLanes) return entropy_of_short_rows<kLanes, V, T>(logits, begin, end, entropy, top);
  const T* data = static_cast<const T*>(logits.data);
  alignas(64) float s[kRows] = {};
  alignas(64) float u[kRows] = {};
  alignas(64) float bits[kRows];
  for (int64_t row = begin; row < end; row += kRows) {
    const int64_t rows = std::min(end - row, kRows);
    for (int64_t r = 0; r < rows; ++r) {
      const T* x = data + (row + r) * logits.row_stride;
      sums_of_row<V>(x, logits.classes, row + r + 1 < end ? x + logits.row_stride : nullptr, s[r], u[r], top[row + r]);
    }
    entropy_bits(V::load(s), V::load(u)).store(bits);
    // a row that is not finite: its sums were NaN, of which the logarithm makes something else
    for (int64_t r = 0; r < rows; ++r) entropy[row + r] = s[r] == s[r] ? bits[r] : kNan;
  }
}

template <class V>
void row_entropy(const Logits& logits, int64_t begin, int64_t end, float* entropy, int32_t* top) {
  if (logits.element == Element::kFloat) entropy_of_rows<V, float>(logits, begin, end, entropy, top);
  if (logits.element == Element::kHalf) entropy_of_rows<V, Half>(logits, begin, end, entropy, top);
  if (logits.element == Element::kBfloat16) entropy_of_rows<V, Bfloat16>(logits, begin, end, entropy, top);
}

}  // namespace
}  // namespace dlp::cpu

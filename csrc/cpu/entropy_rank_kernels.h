// The CPU kernels as templates over a lane type; each instruction set includes this into its own translation
// unit.
#pragma once

#include <cmath>
#include <limits>
#include <memory>

#include "cpu/entropy_rank.h"
#include "entropy_math.h"
#include "rank_key.h"

namespace dlp::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

inline float to_float(float x) { return x; }
struct Half {
  uint16_t bits;
};
struct Bfloat16 {
  uint16_t bits;
};
inline float to_float(Bfloat16 x) { return bits_float(static_cast<uint32_t>(x.bits) << 16); }
inline float to_float(Half x) {
  const uint32_t sign = (x.bits & 0x8000u) << 16, body = x.bits & 0x7fffu;
  if (body >= 0x7c00u) return bits_float(sign | 0x7f800000u | ((body & 0x3ffu) << 13));
  // Half times 2^112 in the fp32 encoding; the multiplication also makes denormals normal.
  return bits_float(sign | float_bits(bits_float(body << 13) * 5.192296858534828e33f));
}

// The tree of entropy_math.h over the first `width` partial sums; the others are absent, that is zero.
template <class V>
inline V tree_sum(V* part, int64_t width) {
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t l = 0; l < half && l + half < width; ++l) part[l] = vadd(part[l], part[l + half]);
    if (width > half) width = half;
  }
  return part[0];
}

// Rows of at most 32 classes: V::kWidth rows at once, one in each lane, so that no lane idles and the
// logarithm and the divisions of the last step are shared too.
template <class V, class T>
void entropy_of_short_rows(const Logits& logits, int64_t begin, int64_t end, float* entropy, int32_t* top) {
  constexpr int64_t kRows = V::kWidth;
  const int64_t classes = logits.classes;
  const T* data = static_cast<const T*>(logits.data);
  alignas(64) float column[kLanes * kRows];
  alignas(64) float bits[kRows];
  alignas(64) float first[kRows];
  for (int64_t row = begin; row < end; row += kRows) {
    const int64_t rows = end - row < kRows ? end - row : kRows;
    for (int64_t r = 0; r < kRows; ++r) {
      const T* x = data + (row + (r < rows ? r : 0)) * logits.row_stride;
      for (int64_t j = 0; j < classes; ++j) column[j * kRows + r] = to_float(x[j]);
    }
    V best = V::load(column), bad = vmul(best, vset<V>(0.0f)), place = vset<V>(0.0f);
    for (int64_t j = 1; j < classes; ++j) {
      const V x = V::load(column + j * kRows);
      bad = vfma(x, vset<V>(0.0f), bad);
      place = vwhere_less(best, x, vset<V>(static_cast<float>(j)), place);
      best = vmax(x, best);
    }
    V s[kLanes], u[kLanes], ties = vset<V>(-1.0f);
    for (int64_t j = 0; j < classes; ++j) {
      const V x = V::load(column + j * kRows);
      s[j] = u[j] = vset<V>(0.0f);
      add_term(x, best, s[j], u[j]);
      ties = vadd(ties, vwhere_zero(vsub(x, best), vset<V>(1.0f), vset<V>(0.0f)));
    }
    const V sum = vadd(tree_sum(s, classes), ties);
    vadd(entropy_bits(sum, tree_sum(u, classes)), bad).store(bits);  // `bad` is 0 or NaN
    place.store(first);
    for (int64_t r = 0; r < rows; ++r) {
      entropy[row + r] = bits[r];
      top[row + r] = static_cast<int32_t>(first[r]);
    }
  }
}

// Longer rows: one row at a time, 32 partial sums.
template <class V>
void entropy_of_row(const float* x, int64_t classes, float* entropy, int32_t* top) {
  constexpr int kW = V::kWidth, kV = kLanes / kW;
  V best[kV], bad[kV];
  for (int v = 0; v < kV; ++v) best[v] = vset<V>(-kInfinity), bad[v] = vset<V>(0.0f);
  const int64_t whole = classes / kLanes * kLanes, rest = classes - whole;
  for (int64_t j = 0; j < whole; j += kLanes) {
    for (int v = 0; v < kV; ++v) {
      const V a = V::load(x + j + v * kW);
      best[v] = vmax(a, best[v]);
      bad[v] = vfma(a, vset<V>(0.0f), bad[v]);
    }
  }
  alignas(64) float part[kLanes], part_u[kLanes], tail[kLanes];
  float largest = -kInfinity, not_finite = 0.0f;
  for (int64_t j = 0; j < kLanes; ++j) tail[j] = j < rest ? x[whole + j] : -kInfinity;
  for (int64_t j = 0; j < rest; ++j) {
    largest = vmax(tail[j], largest);
    not_finite = vfma(tail[j], 0.0f, not_finite);
  }
  for (int v = 0; v < kV; ++v) best[v].store(part + v * kW), bad[v].store(part_u + v * kW);
  for (int l = 0; l < kLanes; ++l) largest = vmax(part[l], largest), not_finite += part_u[l];
  if (not_finite != 0.0f) {
    *entropy = kNan;
    *top = 0;
    return;
  }
  const V peak = vset<V>(largest);
  int64_t ties = 0, place = -1;
  for (int64_t j = 0; j < classes; j += kLanes) {
    const float* from = j < whole ? x + j : tail;
    for (int v = 0; v < kV; ++v) {
      const uint32_t equal = vequal_mask(V::load(from + v * kW), peak);
      if (equal == 0) continue;
      if (place < 0) place = j + v * kW + __builtin_ctz(equal);
      ties += __builtin_popcount(equal);
    }
  }
  float s_row = 0.0f, u_row = 0.0f;
  for (int64_t piece = 0; piece < classes; piece += kPiece) {
    const int64_t stop = piece + kPiece < classes ? piece + kPiece : classes;
    V s[kV], u[kV];
    for (int v = 0; v < kV; ++v) s[v] = u[v] = vset<V>(0.0f);
    for (int64_t j = piece; j < stop; j += kLanes) {
      const float* from = j < whole ? x + j : tail;
      for (int v = 0; v < kV; ++v) add_term(V::load(from + v * kW), peak, s[v], u[v]);
    }
    for (int v = 0; v < kV; ++v) s[v].store(part + v * kW), u[v].store(part_u + v * kW);
    s_row = vadd(s_row, tree_sum(part, kLanes));
    u_row = vadd(u_row, tree_sum(part_u, kLanes));
  }
  *entropy = entropy_bits(vadd(s_row, static_cast<float>(ties - 1)), u_row);
  *top = static_cast<int32_t>(place);
}

template <class V, class T>
void entropy_of_rows(const Logits& logits, int64_t begin, int64_t end, float* entropy, int32_t* top) {
  if (logits.classes <= kLanes) return entropy_of_short_rows<V, T>(logits, begin, end, entropy, top);
  const T* data = static_cast<const T*>(logits.data);
  if constexpr (std::is_same_v<T, float>) {
    for (int64_t row = begin; row < end; ++row)
      entropy_of_row<V>(data + row * logits.row_stride, logits.classes, entropy + row, top + row);
  } else {
    const std::unique_ptr<float[]> wide(new float[logits.classes]);
    for (int64_t row = begin; row < end; ++row) {
      vwiden(data + row * logits.row_stride, logits.classes, wide.get());
      entropy_of_row<V>(wide.get(), logits.classes, entropy + row, top + row);
    }
  }
}

template <class V>
void row_entropy(const Logits& logits, int64_t begin, int64_t end, float* entropy, int32_t* top) {
  if (logits.element == Element::kFloat) entropy_of_rows<V, float>(logits, begin, end, entropy, top);
  if (logits.element == Element::kHalf) entropy_of_rows<V, Half>(logits, begin, end, entropy, top);
  if (logits.element == Element::kBfloat16) entropy_of_rows<V, Bfloat16>(logits, begin, end, entropy, top);
}

// Counters of one group are kept four times over and added at the end: rows of one value would otherwise wait
// for their own last store. Digits are computed by the block, packed into words of four, and taken apart by
// shifts, which is twice as fast as reloading them one by one.
constexpr int kCopies = 4;
constexpr int kNoBin = kBins;  // where rows with another prefix are counted, for lack of a branch
constexpr int64_t kBlock = 32;  // GCC unrolls loops of up to 16 before it could vectorise them

inline uint32_t flipped(float score, uint32_t flip) { return rank_key(score) ^ flip; }

inline void count_block(const uint16_t* digit, uint32_t (*copies)[kBins + kBlock]) {
  uint64_t word[kBlock / kCopies];
  std::memcpy(word, digit, sizeof word);
#pragma GCC unroll 8
  for (const uint64_t w : word) {
    ++copies[0][w & 0xffff];
    ++copies[1][w >> 16 & 0xffff];
    ++copies[2][w >> 32 & 0xffff];
    ++copies[3][w >> 48];
  }
}

inline Faults histogram_of_one(const Scores& scores, int64_t begin, int64_t end, int level, uint32_t prefix,
                               uint32_t* hist) {
  const uint32_t flip = scores.largest ? 0xffffffffu : 0u, mask = digit_mask(level);
  const int shift = digit_shift(level), above = level == 1 ? 21 : 10;
  Faults faults{scores.rows, scores.rows};
  alignas(64) uint32_t copies[kCopies][kBins + kBlock] = {};
  const int64_t whole = begin + (end - begin) / kBlock * kBlock;
  for (int64_t i = begin; i < whole; i += kBlock) {
    const float* x = scores.data + i;
    alignas(64) uint16_t digit[kBlock];
    uint32_t flag = 0;
    if (level == 0) {
      for (int64_t j = 0; j < kBlock; ++j) digit[j] = static_cast<uint16_t>(flipped(x[j], flip) >> 21);
      for (int64_t j = 0; j < kBlock; ++j) flag |= is_finite(x[j]) ? 0u : 1u;
      if (flag != 0 && faults.score == scores.rows) {
        int64_t j = 0;
        while (is_finite(x[j])) ++j;
        faults.score = i + j;
      }
    } else {
      for (int64_t j = 0; j < kBlock; ++j) flag |= flipped(x[j], flip) >> above == prefix ? 1u : 0u;
      if (flag == 0) continue;
      for (int64_t j = 0; j < kBlock; ++j) {
        const uint32_t key = flipped(x[j], flip);
        digit[j] = static_cast<uint16_t>(key >> above == prefix ? (key >> shift) & mask : kNoBin);
      }
    }
    count_block(digit, copies);
  }
  for (int64_t i = whole; i < end; ++i) {
    const uint32_t key = flipped(scores.data[i], flip);
    if (level == 0 && !is_finite(scores.data[i]) && faults.score == scores.rows) faults.score = i;
    if (level == 0 || key >> above == prefix) ++copies[0][(key >> shift) & mask];
  }
  for (int c = 0; c < kCopies; ++c)
    for (int b = 0; b < kBins; ++b) hist[b] += copies[c][b];
  return faults;
}

template <class L>
Faults histogram_of_groups(const Scores& scores, int64_t begin, int64_t end, int level, const uint32_t* prefix,
                           uint32_t* hist) {
  const L* labels = static_cast<const L*>(scores.labels.data);
  const uint32_t flip = scores.largest ? 0xffffffffu : 0u, mask = digit_mask(level);
  const int shift = digit_shift(level), above = level == 1 ? 21 : 10;
  Faults faults{scores.rows, scores.rows};
  for (int64_t i = begin; i < end; ++i) {
    const uint64_t group = static_cast<uint64_t>(labels[i]);
    const uint32_t key = flipped(scores.data[i], flip);
    if (level == 0 && !is_finite(scores.data[i]) && i < faults.score) faults.score = i;
    if (group >= static_cast<uint64_t>(scores.groups)) {
      if (i < faults.label) faults.label = i;
      continue;
    }
    // added without a branch: with half of the rows in the bin it would be guessed wrong half of the time
    hist[group * kBins + ((key >> shift) & mask)] += level == 0 || key >> above == prefix[group] ? 1u : 0u;
  }
  return faults;
}

inline Faults histogram(const Scores& scores, int64_t begin, int64_t end, int level, const uint32_t* prefix,
                        uint32_t* hist) {
  if (scores.labels.type == LabelType::kInt32)
    return histogram_of_groups<int32_t>(scores, begin, end, level, prefix, hist);
  if (scores.labels.type == LabelType::kInt64)
    return histogram_of_groups<int64_t>(scores, begin, end, level, prefix, hist);
  return histogram_of_one(scores, begin, end, level, prefix[0], hist);
}

inline void compact_one(const Scores& scores, int64_t begin, int64_t end, int shift, int64_t limit_given, int64_t ties,
                        int64_t at, uint32_t* keys, int64_t* ids) {
  if (limit_given < 0) return;
  const uint32_t flip = scores.largest ? 0xffffffffu : 0u;
  uint32_t limit = static_cast<uint32_t>(limit_given);
  for (int64_t i = begin; i < end; i += kBlock) {
    const int64_t stop = end - i < kBlock ? end : i + kBlock;
    if (stop - i == kBlock) {
      uint32_t hits = 0;
      for (int64_t j = 0; j < kBlock; ++j) hits |= (flipped(scores.data[i + j], flip) >> shift) <= limit ? 1u : 0u;
      if (hits == 0) continue;
    }
    for (int64_t j = i; j < stop; ++j) {
      const uint32_t key = flipped(scores.data[j], flip), high = key >> shift;
      if (high > limit) continue;
      keys[at] = key;
      ids[at++] = j;
      if (high == limit && --ties == 0) {
        if (limit-- == 0) return;
      }
    }
  }
}

template <class L>
void compact_groups(const Scores& scores, int64_t begin, int64_t end, int shift, int64_t* limit, int64_t* ties,
                    int64_t* cursor, uint32_t* keys, int64_t* ids) {
  const L* labels = static_cast<const L*>(scores.labels.data);
  const uint32_t flip = scores.largest ? 0xffffffffu : 0u;
  for (int64_t i = begin; i < end; ++i) {
    const uint64_t group = static_cast<uint64_t>(labels[i]);
    if (group >= static_cast<uint64_t>(scores.groups)) continue;
    const uint32_t key = flipped(scores.data[i], flip);
    const int64_t high = key >> shift;
    if (high > limit[group]) continue;
    keys[cursor[group]] = key;
    ids[cursor[group]++] = i;
    if (high == limit[group] && --ties[group] == 0) --limit[group];
  }
}

inline void compact(const Scores& scores, int64_t begin, int64_t end, int shift, int64_t* limit, int64_t* ties,
                    int64_t* cursor, uint32_t* keys, int64_t* ids) {
  if (scores.labels.type == LabelType::kInt32)
    return compact_groups<int32_t>(scores, begin, end, shift, limit, ties, cursor, keys, ids);
  if (scores.labels.type == LabelType::kInt64)
    return compact_groups<int64_t>(scores, begin, end, shift, limit, ties, cursor, keys, ids);
  compact_one(scores, begin, end, shift, limit[0], ties[0], cursor[0], keys, ids);
}

template <class V>
constexpr RankKernels make_kernels(const char* name) {
  return {name, row_entropy<V>, histogram, compact};
}

}  // namespace
}  // namespace dlp::cpu

// The CPU kernels of selection, and the set of all kernels of an instruction set, which includes this into its own
// translation unit.
#pragma once

#include <cstring>

#include "cpu/entropy_rank.h"
#include "cpu/entropy_rows.h"
#include "rank_key.h"

namespace dlp::cpu {
namespace {

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

// Mask of lanes with a <= b.
template <class V>
inline uint32_t vless_equal_mask(V a, V b) {
  alignas(64) float x[V::kWidth];
  alignas(64) float y[V::kWidth];
  a.store(x), b.store(y);
  uint32_t mask = 0;
  for (int l = 0; l < V::kWidth; ++l) mask |= static_cast<uint32_t>(x[l] <= y[l]) << l;
  return mask;
}

constexpr int64_t kWord = 64;  // rows whose comparisons fill a word

// Border in scores of keys up to `limit`; all keys are below the largest one, which is a NaN's.
template <bool kLargest>
inline float border_at(uint32_t limit) {
  if (limit == 0xffffffffu) return kLargest ? -kInfinity : kInfinity;
  return score_of_key(kLargest ? ~limit : limit);
}
// The same of keys below `limit`. The number below 0 is no -0, which would compare equal.
template <bool kLargest>
inline float border_below(uint32_t limit) {
  return border_at<kLargest>(limit - (!kLargest && limit == 0x80000000u ? 2 : 1));
}

// Scores are compared as floats, a word of rows at a time; only what passes gets a key, which decides.
template <bool kLargest, class V>
int64_t collect_one(const Scores& scores, int64_t begin, int64_t end, uint32_t limit, int64_t& ties, int64_t capacity,
                    uint32_t* keys, int64_t* ids) {
  const uint32_t flip = kLargest ? 0xffffffffu : 0u;
  V border = vset<V>(border_at<kLargest>(limit)), bad = vset<V>(0.0f);
  int64_t at = 0;
  for (int64_t i = begin; i < end; i += kWord) {
    const float* x = scores.data + i;
    uint64_t hits = 0;
    if (end - i >= kWord) {
      for (int64_t j = 0; j < kWord; j += V::kWidth) {
        const V a = V::load(x + j);
        bad = vfma(a, vset<V>(0.0f), bad);
        hits |= static_cast<uint64_t>(kLargest ? vless_equal_mask(border, a) : vless_equal_mask(a, border)) << j;
      }
      if (hits == 0) continue;
    } else {
      hits = (uint64_t{1} << (end - i)) - 1;
      for (int64_t j = 0; j < end - i; ++j)
        if (!is_finite(x[j])) return -1;
    }
    if (at + kWord > capacity) return -1;
    for (; hits != 0; hits &= hits - 1) {
      const int64_t j = __builtin_ctzll(hits);
      const uint32_t key = flipped(x[j], flip);
      if (key > limit || (key == limit && ties == 0)) continue;
      keys[at] = key;
      ids[at++] = i + j;
      if (key == limit && --ties == 0 && limit > 0) border = vset<V>(border_below<kLargest>(limit));
    }
  }
  return vequal_mask(bad, vset<V>(0.0f)) == (uint32_t{1} << V::kWidth) - 1 ? at : -1;
}

template <bool kLargest, class L>
int64_t collect_groups(const Scores& scores, int64_t begin, int64_t end, const uint32_t* limit, int64_t* ties,
                       int64_t capacity, uint32_t* keys, int64_t* ids, uint8_t* group) {
  const L* labels = static_cast<const L*>(scores.labels.data);
  const uint32_t flip = kLargest ? 0xffffffffu : 0u;
  float border[kCollectGroups];
  for (int64_t g = 0; g < scores.groups; ++g) border[g] = border_at<kLargest>(limit[g]);
  int64_t at = 0;
  for (int64_t i = begin; i < end; i += kWord) {
    const int64_t here = end - i < kWord ? end - i : kWord;
    const float* x = scores.data + i;
    const L* label = labels + i;
    uint64_t wrong = 0;
    for (int64_t j = 0; j < here; ++j)
      wrong |= (static_cast<uint64_t>(label[j]) >= static_cast<uint64_t>(scores.groups)) | !is_finite(x[j]);
    if (wrong != 0) return -1;
    uint64_t hits = 0;
    for (int64_t j = 0; j < here; ++j)
      hits |= static_cast<uint64_t>(kLargest ? x[j] >= border[label[j]] : x[j] <= border[label[j]]) << j;
    if (hits == 0) continue;
    if (at + kWord > capacity) return -1;
    for (; hits != 0; hits &= hits - 1) {
      const int64_t j = __builtin_ctzll(hits), g = label[j];
      const uint32_t key = flipped(x[j], flip);
      if (key > limit[g] || (key == limit[g] && ties[g] == 0)) continue;
      keys[at] = key;
      group[at] = static_cast<uint8_t>(g);
      ids[at++] = i + j;
      if (key == limit[g] && --ties[g] == 0 && key > 0) border[g] = border_below<kLargest>(key);
    }
  }
  return at;
}

template <bool kLargest, class V>
int64_t collect_of(const Scores& scores, int64_t begin, int64_t end, const uint32_t* limit, int64_t* ties,
                   int64_t capacity, uint32_t* keys, int64_t* ids, uint8_t* group) {
  if (scores.labels.type == LabelType::kInt32)
    return collect_groups<kLargest, int32_t>(scores, begin, end, limit, ties, capacity, keys, ids, group);
  if (scores.labels.type == LabelType::kInt64)
    return collect_groups<kLargest, int64_t>(scores, begin, end, limit, ties, capacity, keys, ids, group);
  return collect_one<kLargest, V>(scores, begin, end, limit[0], ties[0], capacity, keys, ids);
}

template <class V>
int64_t collect(const Scores& scores, int64_t begin, int64_t end, const uint32_t* limit, int64_t* ties,
                int64_t capacity, uint32_t* keys, int64_t* ids, uint8_t* group) {
  const auto run = scores.largest ? collect_of<true, V> : collect_of<false, V>;
  return run(scores, begin, end, limit, ties, capacity, keys, ids, group);
}

template <class V>
constexpr RankKernels make_kernels(const char* name) {
  return {name, row_entropy<V>, histogram, compact, collect<V>};
}

}  // namespace
}  // namespace dlp::cpu

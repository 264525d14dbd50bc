// Order of finite fp32 scores as unsigned integers, and the three digits that selection counts by.
#pragma once

#include <cstdint>

#include "entropy_math.h"

namespace dlp {
namespace {

// 11 + 11 + 10 bits: 2048 counters of 4 bytes fill 8 KiB, so four sets of them stay in a 32 KiB first-level
// cache.
constexpr int kDigits = 3;
constexpr int kBins = 2048;
DLP_HD int digit_shift(int level) { return level == 0 ? 21 : level == 1 ? 10 : 0; }
DLP_HD uint32_t digit_mask(int level) { return level == 2 ? 1023u : 2047u; }

// Monotone: a < b gives rank_key(a) < rank_key(b); -0 and +0 are equal. Descending order is the complement.
DLP_HD uint32_t rank_key(float score) {
  const uint32_t b = float_bits(vadd(score, 0.0f));
  return b ^ (static_cast<uint32_t>(static_cast<int32_t>(b) >> 31) | 0x80000000u);
}
// A score with this key.
DLP_HD float score_of_key(uint32_t key) { return bits_float(key & 0x80000000u ? key ^ 0x80000000u : ~key); }
DLP_HD bool is_finite(float x) { return (float_bits(x) & 0x7f800000u) != 0x7f800000u; }

}  // namespace
}  // namespace dlp

// The loops of `augment` over bytes that pay for wide registers, one set for each instruction set; all sets
// give the same bits.
#pragma once

#include <cstdint>

namespace dlp::augment {

struct RowKernels {
  // bytes[i] = blend(degenerate, bytes[i], factor)
  void (*blend_constant)(uint8_t* bytes, int64_t n, int degenerate, float factor);
  // bytes[i] = blend(degenerate[i], bytes[i], factor)
  void (*blend_bytes)(uint8_t* bytes, const uint8_t* degenerate, int64_t n, float factor);
  // bytes[i] &= mask
  void (*posterize)(uint8_t* bytes, int64_t n, int mask);
  // bytes[i] from the threshold on are inverted
  void (*solarize)(uint8_t* bytes, int64_t n, int threshold);
  // to[i] = blend(smoothed here[i], here[i], factor), by the neighbours above, under and three bytes to
  // either side
  void (*sharpen)(uint8_t* to, const uint8_t* above, const uint8_t* here, const uint8_t* under, int64_t n,
                  float factor);
  // the pixels (three bytes each) of `from` in reverse order; the two do not overlap
  void (*mirror)(const uint8_t* from, int64_t pixels, uint8_t* to);
  // to[i] = table[(i % 3) * 256 + bytes[i]], in place too where the table holds bytes
  void (*look_up8)(const uint8_t* bytes, int64_t n, const uint8_t* table, uint8_t* to);
  void (*look_up16)(const uint8_t* bytes, int64_t n, const uint16_t* table, uint16_t* to);
  void (*look_up32)(const uint8_t* bytes, int64_t n, const uint32_t* table, uint32_t* to);
};

// The widest set that this processor has; DLP_FAST_SIMD=baseline|avx2|avx512 lowers it, for tests and for
// comparing (avx512 leaves VBMI out).
const RowKernels& row_kernels();

}  // namespace dlp::augment

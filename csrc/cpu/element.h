// Half-precision elements as bits, and what they are as fp32.
#pragma once

#include <cstdint>

#include "entropy_math.h"

namespace dlp::cpu {
namespace {

struct Half {
  uint16_t bits;
};
struct Bfloat16 {
  uint16_t bits;
};
inline float to_float(float x) { return x; }
inline float to_float(Bfloat16 x) { return bits_float(static_cast<uint32_t>(x.bits) << 16); }
inline float to_float(Half x) {
  const uint32_t sign = (x.bits & 0x8000u) << 16, body = x.bits & 0x7fffu;
  if (body >= 0x7c00u) return bits_float(sign | 0x7f800000u | ((body & 0x3ffu) << 13));
  // Half times 2^112 in the fp32 encoding; the multiplication also makes denormals normal.
  return bits_float(sign | float_bits(bits_float(body << 13) * 5.192296858534828e33f));
}

}  // namespace
}  // namespace dlp::cpu

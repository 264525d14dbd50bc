#pragma once
#include "cuda_runtime_api.h"
struct __half {
  uint16_t bits;
};
inline float __half2float(__half x) { return static_cast<float>(emulated::unpacked<_Float16>(x.bits)); }
inline __half __float2half_rn(float x) {
  return {static_cast<uint16_t>(emulated::packed(static_cast<_Float16>(x)))};
}
struct __half2 {
  __half x, y;
};
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }

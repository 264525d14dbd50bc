#include "cpu/augment_rows.h"

#include <cstdlib>
#include <cstring>
#include <string_view>

#include "augment_pixel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dlp::augment {
namespace {

// Each loop is written once; DLP_ROW_KERNELS compiles it for an instruction set, and the compiler vectorises
// it.
#define DLP_BODY [[gnu::always_inline]] inline void

DLP_BODY blend_constant_body(uint8_t* __restrict bytes, int64_t n, int degenerate, float factor) {
  for (int64_t i = 0; i < n; ++i) bytes[i] = blend(degenerate, bytes[i], factor);
}

DLP_BODY blend_bytes_body(uint8_t* __restrict bytes, const uint8_t* __restrict degenerate, int64_t n,
                          float factor) {
  for (int64_t i = 0; i < n; ++i) bytes[i] = blend(degenerate[i], bytes[i], factor);
}

DLP_BODY posterize_body(uint8_t* __restrict bytes, int64_t n, int mask) {
  for (int64_t i = 0; i < n; ++i) bytes[i] = static_cast<uint8_t>(bytes[i] & mask);
}

DLP_BODY solarize_body(uint8_t* __restrict bytes, int64_t n, int threshold) {
  // a threshold is at most 231, so it is a byte
  const uint8_t limit = static_cast<uint8_t>(threshold);
  for (int64_t i = 0; i < n; ++i) bytes[i] = bytes[i] < limit ? bytes[i] : static_cast<uint8_t>(~bytes[i]);
}

DLP_BODY sharpen_body(uint8_t* __restrict to, const uint8_t* __restrict above, const uint8_t* __restrict here,
                      const uint8_t* __restrict under, int64_t n, float factor) {
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t column_left = static_cast<uint16_t>(above[i - 3] + here[i - 3] + under[i - 3]);
    const uint16_t column_right = static_cast<uint16_t>(above[i + 3] + here[i + 3] + under[i + 3]);
    const uint16_t column = static_cast<uint16_t>(above[i] + 5 * here[i] + under[i]);
    to[i] = blend(smooth(static_cast<uint16_t>(column_left + column_right + column)), here[i], factor);
  }
}

template <typename Value>
void look_up(const uint8_t* bytes, int64_t n, const Value* table, Value* to) {
  for (int64_t i = 0; i < n; i += kChannels) {
    for (int c = 0; c < kChannels; ++c) to[i + c] = table[c * kBins + bytes[i + c]];
  }
}

void mirror(const uint8_t* from, int64_t pixels, uint8_t* to) {
  for (int64_t x = 0; x < pixels; ++x) std::memcpy(to + 3 * x, from + 3 * (pixels - 1 - x), 3);
}

#if defined(__x86_64__)
// Five pixels at a time; the sixteenth byte is the first of the next five.
__attribute__((target("ssse3"))) void mirror_ssse3(const uint8_t* from, int64_t pixels, uint8_t* to) {
  const __m128i reversed = _mm_setr_epi8(13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, 1, 2, 3, -1);
  int64_t x = 0;
  for (; x + 6 <= pixels; x += 5) {
    const auto* five = reinterpret_cast<const __m128i*>(from + 3 * (pixels - x) - 16);
    const __m128i turned = _mm_shuffle_epi8(_mm_loadu_si128(five), reversed);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 3 * x), turned);
  }
  mirror(from, pixels - x, to + 3 * x);
}

#define DLP_VBMI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")))

// The bytes of one significance of a table of 256 values: four registers.
struct Plane {
  __m512i quarter[4];
};

DLP_VBMI inline __m512i look_up_plane(const Plane& plane, __m512i index, __mmask64 upper) {
  const __m512i low = _mm512_permutex2var_epi8(plane.quarter[0], index, plane.quarter[1]);
  const __m512i high = _mm512_permutex2var_epi8(plane.quarter[2], index, plane.quarter[3]);
  return _mm512_mask_mov_epi8(low, upper, high);
}

template <typename Value>
DLP_VBMI Plane plane_of(const Value* table, int significance) {
  alignas(64) uint8_t bytes[kBins];
  for (int v = 0; v < kBins; ++v) bytes[v] = static_cast<uint8_t>(table[v] >> (8 * significance));
  Plane plane;
  for (int q = 0; q < 4; ++q) plane.quarter[q] = _mm512_load_si512(bytes + 64 * q);
  return plane;
}

// 64 bytes are looked up at once, a plane of the values at a time; the planes are interleaved into values in
// the end.
template <typename Value>
DLP_VBMI void look_up_vbmi(const uint8_t* bytes, int64_t n, const Value* table, Value* to) {
  constexpr int kPlanes = sizeof(Value);
  Plane planes[kPlanes][kChannels];
  for (int p = 0; p < kPlanes; ++p) {
    for (int c = 0; c < kChannels; ++c) planes[p][c] = plane_of(table + c * kBins, p);
  }
  // lanes of the second and third channel, by the channel of the first lane
  constexpr uint64_t kEveryThird = 0x9249249249249249u;  // lanes 0, 3, 6, ..
  constexpr uint64_t kSecond[3] = {kEveryThird << 1, kEveryThird, kEveryThird << 2};
  constexpr uint64_t kThird[3] = {kEveryThird << 2, kEveryThird << 1, kEveryThird};
  // where the elements of two interleaved registers come from: lane k of the first is k, of the second 64 + k
  alignas(64) uint8_t order8[2][64];
  alignas(64) uint16_t order16[2][32];
  for (int k = 0; k < 64; ++k) {
    for (int h = 0; h < 2; ++h) order8[h][k] = static_cast<uint8_t>(h * 32 + k / 2 + (k % 2) * 64);
  }
  for (int k = 0; k < 32; ++k) {
    for (int h = 0; h < 2; ++h) order16[h][k] = static_cast<uint16_t>(h * 16 + k / 2 + (k % 2) * 32);
  }
  const __m512i first8 = _mm512_load_si512(order8[0]), second8 = _mm512_load_si512(order8[1]);
  const __m512i first16 = _mm512_load_si512(order16[0]), second16 = _mm512_load_si512(order16[1]);

  int64_t i = 0;
  for (int phase = 0; i + 64 <= n; i += 64, phase = phase == 2 ? 0 : phase + 1) {
    const __m512i index = _mm512_loadu_si512(bytes + i);
    const __mmask64 upper = _mm512_movepi8_mask(index), second = kSecond[phase], third = kThird[phase];
    __m512i looked_up[kPlanes];
    for (int p = 0; p < kPlanes; ++p) {
      const __m512i v = look_up_plane(planes[p][0], index, upper);
      const __m512i w = _mm512_mask_mov_epi8(v, second, look_up_plane(planes[p][1], index, upper));
      looked_up[p] = _mm512_mask_mov_epi8(w, third, look_up_plane(planes[p][2], index, upper));
    }
    if constexpr (kPlanes == 1) {
      _mm512_storeu_si512(to + i, looked_up[0]);
    } else if constexpr (kPlanes == 2) {
      _mm512_storeu_si512(to + i, _mm512_permutex2var_epi8(looked_up[0], first8, looked_up[1]));
      _mm512_storeu_si512(to + i + 32, _mm512_permutex2var_epi8(looked_up[0], second8, looked_up[1]));
    } else {
      const __m512i order[2] = {first8, second8};
      for (int h = 0; h < 2; ++h) {
        const __m512i low = _mm512_permutex2var_epi8(looked_up[0], order[h], looked_up[1]);
        const __m512i high = _mm512_permutex2var_epi8(looked_up[2], order[h], looked_up[3]);
        _mm512_storeu_si512(to + i + 32 * h, _mm512_permutex2var_epi16(low, first16, high));
        _mm512_storeu_si512(to + i + 32 * h + 16, _mm512_permutex2var_epi16(low, second16, high));
      }
    }
  }
  for (; i < n; ++i) to[i] = table[(i % kChannels) * kBins + bytes[i]];
}
#endif

#define DLP_ROW_KERNELS(NAME, TARGET, MIRROR, LOOK_UP)                                                      \
  struct NAME {                                                                                             \
    TARGET static void blend_constant(uint8_t* bytes, int64_t n, int degenerate, float factor) {            \
      blend_constant_body(bytes, n, degenerate, factor);                                                    \
    }                                                                                                       \
    TARGET static void blend_bytes(uint8_t* bytes, const uint8_t* degenerate, int64_t n, float factor) {    \
      blend_bytes_body(bytes, degenerate, n, factor);                                                       \
    }                                                                                                       \
    TARGET static void posterize(uint8_t* bytes, int64_t n, int mask) { posterize_body(bytes, n, mask); }   \
    TARGET static void solarize(uint8_t* bytes, int64_t n, int threshold) {                                 \
      solarize_body(bytes, n, threshold);                                                                   \
    }                                                                                                       \
    TARGET static void sharpen(uint8_t* to, const uint8_t* above, const uint8_t* here, const uint8_t* under,\
                               int64_t n, float factor) {                                                   \
      sharpen_body(to, above, here, under, n, factor);                                                      \
    }                                                                                                       \
    static constexpr RowKernels kAll{blend_constant, blend_bytes, posterize, solarize, sharpen,             \
                                     MIRROR,         LOOK_UP,     LOOK_UP,   LOOK_UP};                      \
  }

DLP_ROW_KERNELS(Baseline, , mirror, look_up);
#if defined(__x86_64__)
#define DLP_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512")))
DLP_ROW_KERNELS(Avx2, __attribute__((target("avx2"))), mirror_ssse3, look_up);
DLP_ROW_KERNELS(Avx512, DLP_AVX512, mirror_ssse3, look_up);
DLP_ROW_KERNELS(Avx512Vbmi, DLP_AVX512, mirror_ssse3, look_up_vbmi);
#endif

#if defined(__x86_64__)
const RowKernels& widest() {
  const char* wish = std::getenv("DLP_FAST_SIMD");
  const std::string_view level = wish == nullptr ? "" : wish;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (level == "baseline" || !__builtin_cpu_supports("avx2")) return Baseline::kAll;
  if (level == "avx2" || !avx512) return Avx2::kAll;
  if (level == "avx512" || !__builtin_cpu_supports("avx512vbmi")) return Avx512::kAll;
  return Avx512Vbmi::kAll;
}
#else
const RowKernels& widest() { return Baseline::kAll; }
#endif

}  // namespace

const RowKernels& row_kernels() {
  static const RowKernels& chosen = widest();
  return chosen;
}

}  // namespace dlp::augment

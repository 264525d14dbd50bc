// Trigger injection on the CPU: spans of bytes, vectorised by the compiler once for each SIMD level.
#include "inject_trigger.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#define DLP_X86 1
#endif

namespace dlp {
namespace {

// Channel-last normalisation repeats after 3 values and vectors after 16: one block of both periods.
constexpr int64_t kBlock = 48;

struct AffineBlock {
  float scale[kBlock];
  float shift[kBlock];
};

AffineBlock repeat(const Affine& affine) {
  AffineBlock block;
  for (int64_t i = 0; i < kBlock; ++i) {
    block.scale[i] = affine.scale[i % kChannels];
    block.shift[i] = affine.shift[i % kChannels];
  }
  return block;
}

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Round to nearest even; finite input.
DLP_HOST_DEVICE uint16_t to_bfloat16(float value) {
  const uint32_t bits = bits_of(value);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Round to nearest even; finite input. Subnormal results are rounded by the float adder at their own ulp.
uint16_t to_float16(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds beyond 65504
  if (magnitude < 0x38800000u) {                                              // below 2^-14
    const uint32_t shifted = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
    return static_cast<uint16_t>(sign | shifted);
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

// The loops below are compiled three times, as baseline x86-64, AVX2 and AVX-512; their arithmetic is exact or
// rounded in a stated order, so the level changes no bit.
// One pointer is read and written: with two, the compiler's run-time overlap test would choose the scalar loop.
DLP_HOST_DEVICE void blend_span(uint8_t* __restrict y, const uint8_t* __restrict t, int16_t weight, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = blend_byte(y[i], t[i], weight);
}

DLP_HOST_DEVICE void masked_blend_span(uint8_t* __restrict y, const uint8_t* __restrict t,
                                       const int16_t* __restrict weight, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = blend_byte(y[i], t[i], weight[i]);
}

DLP_HOST_DEVICE void add_span(uint8_t* __restrict y, const int16_t* __restrict residual, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = add_byte(y[i], residual[i]);
}

DLP_HOST_DEVICE void affine_block(const uint8_t* __restrict x, const AffineBlock& a, float* __restrict y) {
  for (int64_t i = 0; i < kBlock; ++i) y[i] = static_cast<float>(x[i]) * a.scale[i] + a.shift[i];
}

DLP_HOST_DEVICE void float_span(const uint8_t* x, const AffineBlock& a, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + kBlock <= n; i += kBlock) affine_block(x + i, a, y + i);
  for (int64_t j = 0; i + j < n; ++j) y[i + j] = static_cast<float>(x[i + j]) * a.scale[j] + a.shift[j];
}

DLP_HOST_DEVICE void bfloat16_span(const uint8_t* x, const AffineBlock& a, uint16_t* __restrict y, int64_t n) {
  int64_t i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    for (int64_t j = 0; j < kBlock; ++j) {
      y[i + j] = to_bfloat16(static_cast<float>(x[i + j]) * a.scale[j] + a.shift[j]);
    }
  }
  for (int64_t j = 0; i + j < n; ++j) {
    y[i + j] = to_bfloat16(static_cast<float>(x[i + j]) * a.scale[j] + a.shift[j]);
  }
}

void float16_span(const uint8_t* x, const AffineBlock& a, uint16_t* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    y[i] = to_float16(static_cast<float>(x[i]) * a.scale[i % kBlock] + a.shift[i % kBlock]);
  }
}

#ifdef DLP_X86
// No compiler makes vcvtps2ph out of portable C++, hence the one intrinsic of this file.
__attribute__((target("avx2,f16c"))) void float16_span_f16c(const uint8_t* x, const AffineBlock& a, uint16_t* y,
                                                            int64_t n) {
  float values[kBlock];
  int64_t i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    affine_block(x + i, a, values);
    for (int64_t j = 0; j < kBlock; j += 8) {
      const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(values + j), _MM_FROUND_TO_NEAREST_INT);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i + j), half);
    }
  }
  float16_span(x + i, a, y + i, n - i);
}
#endif

struct Spans {
  void (*blend)(uint8_t*, const uint8_t*, int16_t, int64_t);
  void (*masked_blend)(uint8_t*, const uint8_t*, const int16_t*, int64_t);
  void (*add)(uint8_t*, const int16_t*, int64_t);
  void (*to_float)(const uint8_t*, const AffineBlock&, float*, int64_t);
  void (*to_bfloat16)(const uint8_t*, const AffineBlock&, uint16_t*, int64_t);
  void (*to_float16)(const uint8_t*, const AffineBlock&, uint16_t*, int64_t);
};

#define DLP_SPANS(NAME, TARGET, FLOAT16)                                                                \
  struct NAME {                                                                                         \
    TARGET static void blend(uint8_t* y, const uint8_t* t, int16_t w, int64_t n) {                      \
      blend_span(y, t, w, n);                                                                           \
    }                                                                                                   \
    TARGET static void masked_blend(uint8_t* y, const uint8_t* t, const int16_t* w, int64_t n) {        \
      masked_blend_span(y, t, w, n);                                                                    \
    }                                                                                                   \
    TARGET static void add(uint8_t* y, const int16_t* r, int64_t n) { add_span(y, r, n); }              \
    TARGET static void floats(const uint8_t* x, const AffineBlock& a, float* y, int64_t n) {            \
      float_span(x, a, y, n);                                                                           \
    }                                                                                                   \
    TARGET static void bfloats(const uint8_t* x, const AffineBlock& a, uint16_t* y, int64_t n) {        \
      bfloat16_span(x, a, y, n);                                                                        \
    }                                                                                                   \
    static constexpr Spans spans{blend, masked_blend, add, floats, bfloats, FLOAT16};                   \
  }

DLP_SPANS(Baseline, , float16_span);
#ifdef DLP_X86
DLP_SPANS(Avx2, __attribute__((target("avx2"))), float16_span_f16c);
DLP_SPANS(Avx512, __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512"))),
          float16_span_f16c);
#endif

// DLP_FAST_SIMD=baseline|avx2|avx512 lowers the level, for tests and for comparing; it never raises it.
Spans choose_spans() {
#ifdef DLP_X86
  const char* wish = std::getenv("DLP_FAST_SIMD");
  const std::string_view limit = wish ? wish : "avx512";
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && limit == "avx512") return Avx512::spans;
  if (avx2 && limit != "baseline") return Avx2::spans;
#endif
  return Baseline::spans;
}

const Spans& spans() {
  static const Spans chosen = choose_spans();
  return chosen;
}

// `n` bytes of the trigger's rectangle from the start of its row `row`, onto the pixels at y.
void apply_span(const InjectArgs& args, const TriggerRecord& r, uint8_t* y, int64_t row, int64_t n) {
  const Spans& simd = spans();
  const uint8_t* overlay = r.kind == kAdditive ? nullptr : args.overlay + r.overlay + row * r.width * kChannels;
  const bool has_terms = r.kind == kMaskedBlend || r.kind == kAdditive;
  const int16_t* terms = has_terms ? args.terms + r.terms + row * r.terms_row : nullptr;
  switch (r.kind) {
    case kPatch: std::memcpy(y, overlay, n); break;
    case kBlend: simd.blend(y, overlay, static_cast<int16_t>(r.weight), n); break;
    case kMaskedBlend: simd.masked_blend(y, overlay, terms, n); break;
    default: simd.add(y, terms, n); break;
  }
}

// Image rows [begin, end) through the trigger, in place; y points at row `begin`.
void apply_rows(const InjectArgs& args, const TriggerRecord& r, uint8_t* y, int64_t begin, int64_t end) {
  const int64_t first = std::max(begin, r.top);
  const int64_t last = std::min(end, r.top + r.height);
  if (first >= last || r.width == 0) return;
  const int64_t pitch = args.width * kChannels;
  const bool repeats = (r.kind == kMaskedBlend || r.kind == kAdditive) && r.terms_row == 0;
  if (r.width == args.width && !repeats) {
    apply_span(args, r, y + (first - begin) * pitch, first - r.top, (last - first) * pitch);
    return;
  }
  for (int64_t row = first; row < last; ++row) {
    apply_span(args, r, y + (row - begin) * pitch + r.left * kChannels, row - r.top, r.width * kChannels);
  }
}

void normalise(const InjectArgs& args, const AffineBlock& affine, const uint8_t* x, int64_t out_at, int64_t n) {
  const Spans& simd = spans();
  if (args.out_type == PixelOut::kFloat32) simd.to_float(x, affine, static_cast<float*>(args.out) + out_at, n);
  if (args.out_type == PixelOut::kBFloat16) simd.to_bfloat16(x, affine, static_cast<uint16_t*>(args.out) + out_at, n);
  if (args.out_type == PixelOut::kFloat16) simd.to_float16(x, affine, static_cast<uint16_t*>(args.out) + out_at, n);
}

}  // namespace

void inject_trigger_cpu(const InjectArgs& args, const int64_t* rows, int64_t unit_begin, int64_t unit_end) {
  const int64_t bands = bands_of(args.height);
  const int64_t pitch = args.width * kChannels;
  const AffineBlock affine = repeat(args.affine);
  std::vector<uint8_t> row_buffer;
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    const int64_t image = rows ? rows[unit / bands] : unit / bands;
    const int64_t begin = unit % bands * kBandRows;
    const int64_t end = std::min(begin + kBandRows, args.height);
    const uint8_t* x = args.images + image * args.images_stride;
    const TriggerRecord* record = args.which[image] >= 0 ? args.records + args.which[image] : nullptr;
    if (args.out_type == PixelOut::kUInt8) {
      uint8_t* y = static_cast<uint8_t*>(args.out) + image * args.out_stride;
      if (x != y) std::memcpy(y + begin * pitch, x + begin * pitch, (end - begin) * pitch);
      if (record) apply_rows(args, *record, y + begin * pitch, begin, end);
      continue;
    }
    if (record == nullptr) {
      normalise(args, affine, x + begin * pitch, image * args.out_stride + begin * pitch, (end - begin) * pitch);
      continue;
    }
    // The poisoned pixels exist only row by row, in a buffer that stays in the first-level cache.
    row_buffer.resize(pitch);
    for (int64_t row = begin; row < end; ++row) {
      std::memcpy(row_buffer.data(), x + row * pitch, pitch);
      apply_rows(args, *record, row_buffer.data(), row, row + 1);
      normalise(args, affine, row_buffer.data(), image * args.out_stride + row * pitch, pitch);
    }
  }
}

}  // namespace dlp

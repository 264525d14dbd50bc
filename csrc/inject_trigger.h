// What a trigger is and what it does to one byte, one place for g++ and nvcc.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define DLP_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define DLP_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace dlp {

constexpr int64_t kChannels = 3;

enum TriggerKind : int64_t { kPatch = 0, kBlend = 1, kMaskedBlend = 2, kAdditive = 3, kTriggerKinds = 4 };

// One row of the table's `records`. The trigger covers a rectangle of the image; `overlay` (uint8: what is pasted
// or blended in) and `terms` (int16: weights of a masked blend, or residuals) hold height * width * 3 values from
// the stated start, except that terms_row = 0 repeats one row of terms for the whole rectangle.
struct TriggerRecord {
  int64_t kind, top, left, height, width, overlay, terms, terms_row, weight;
};
constexpr int64_t kRecordFields = 9;
static_assert(sizeof(TriggerRecord) == kRecordFields * sizeof(int64_t), "a record is a row of an int64 tensor");

// Opacity is fixed point with 15 fraction bits, kept negated: -32768 (opaque) fits in int16, +32768 would not, and
// the whole blend is then one rounding high multiply (pmulhrsw) per 16, 32 or 64 bytes.
constexpr int kOpacityBits = 15;

// floor((1 - a) * x + a * t + 1/2) with a = -weight / 2^15: exact integers, half rounds up, never leaves [x, t].
DLP_HOST_DEVICE uint8_t blend_byte(uint8_t x, uint8_t t, int16_t weight) {
  const auto difference = static_cast<int16_t>(x - t);
  const auto rounded = static_cast<int16_t>((((int32_t{difference} * weight) >> (kOpacityBits - 1)) + 1) >> 1);
  return static_cast<uint8_t>(x + rounded);
}

DLP_HOST_DEVICE uint8_t add_byte(uint8_t x, int16_t residual) {
  const int32_t sum = int32_t{x} + residual;
  return static_cast<uint8_t>(sum < 0 ? 0 : (sum > 255 ? 255 : sum));
}

// Whether the record stays inside the image and inside the table: written so that no sum can overflow.
DLP_HOST_DEVICE bool record_is_valid(const TriggerRecord& r, int64_t height, int64_t width, int64_t overlay_size,
                                     int64_t terms_size) {
  if (r.kind < 0 || r.kind >= kTriggerKinds || r.height < 0 || r.width < 0 || r.top < 0 || r.left < 0) return false;
  if (r.height > height || r.width > width || r.top > height - r.height || r.left > width - r.width) return false;
  const int64_t values = r.height * r.width * kChannels;
  const bool uses_overlay = r.kind != kAdditive;
  const bool uses_terms = r.kind == kMaskedBlend || r.kind == kAdditive;
  if (uses_overlay && (r.overlay < 0 || values > overlay_size || r.overlay > overlay_size - values)) return false;
  if (r.kind == kBlend && (r.weight < -(1 << kOpacityBits) || r.weight > 0)) return false;
  if (!uses_terms) return true;
  const int64_t row = r.width * kChannels;
  if (r.terms_row != 0 && r.terms_row != row) return false;
  const int64_t held = r.terms_row == 0 && r.height > 0 ? row : values;
  return r.terms >= 0 && held <= terms_size && r.terms <= terms_size - held;
}

enum class PixelOut : int32_t { kUInt8, kFloat32, kFloat16, kBFloat16 };

// out = fl32(fl32(pixel * scale) + shift): two roundings everywhere, so that CPU, GPU and reference agree in each bit.
struct Affine {
  float scale[kChannels];
  float shift[kChannels];
};

// Everything that a kernel needs; strides count elements from one image to the next.
struct InjectArgs {
  const uint8_t* images;
  int64_t images_stride;
  void* out;  // == images: in place
  int64_t out_stride;
  PixelOut out_type;
  const int64_t* which;
  int64_t count, height, width;
  const TriggerRecord* records;
  int64_t record_count;
  const uint8_t* overlay;
  int64_t overlay_size;
  const int16_t* terms;
  int64_t terms_size;
  Affine affine;
  int64_t* faults;  // on a GPU: 2 numbers, see cuda/inject_trigger.cu; the host checks before it begins
};

// CPU: one unit is kBandRows rows of one image; `rows` lists the images to be visited, or is null for all of them.
constexpr int64_t kBandRows = 64;
constexpr int64_t bands_of(int64_t height) { return (height + kBandRows - 1) / kBandRows; }
void inject_trigger_cpu(const InjectArgs& args, const int64_t* rows, int64_t unit_begin, int64_t unit_end);

}  // namespace dlp

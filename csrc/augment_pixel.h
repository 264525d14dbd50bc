// What one image of `augment` draws, and the arithmetic of one pixel of each operation: g++ and nvcc compile
// the same text. All of it agrees with Pillow to the bit; floating point is used only where Pillow uses it,
// in the same order, so neither compiler may contract a*b+c (-ffp-contract=off, -fmad=false).
#pragma once

#include <cmath>
#include <cstdint>

#include "philox.h"

namespace dlp::augment {

// The pool of FixMatch's reference RandAugment, in its order (dlp_fast/ops/augment_parameters.py has the
// same).
enum Operation : int {
  kAutoContrast, kBrightness, kColor, kContrast, kEqualize, kIdentity, kPosterize,
  kRotate, kSharpness, kShearX, kShearY, kSolarize, kTranslateX, kTranslateY,
  kOperations
};

// Blocks of the random counter (dlp_fast/ops/philox.py, class Block).
enum : uint32_t { kBlockWeak, kBlockStrong, kBlockCutout, kBlockOperation };

constexpr int kLevels = 10;         // the scale of levels; a drawn one is below it
constexpr int kGrey = 127;
constexpr int kBins = 256;
constexpr int kChannels = 3;

struct Settings {
  uint64_t seed;
  uint32_t epoch;
  int height, width;
  bool flip;
  int pad, operations, magnitude, cutout;
};

struct View {
  bool flip;
  int dx, dy;  // 0..2*pad: where the crop starts in the padded image
};

struct Draw {
  int operation;
  int level;  // 1..kLevels-1
  bool negative;
};

struct Box {
  int x0, y0, x1, y1;  // both ends included; empty where x1 < x0
};

DLP_HOST_DEVICE View draw_view(const Settings& s, int64_t id, uint32_t block) {
  const Words w = philox(s.seed, s.epoch, id, block);
  return {s.flip && coin(w.word[0]), below(w.word[1], 2 * s.pad + 1), below(w.word[2], 2 * s.pad + 1)};
}

// A draw that is not carried out (p = 0.5) comes back as the identity.
DLP_HOST_DEVICE Draw draw_operation(const Settings& s, int64_t id, int index) {
  const Words w = philox(s.seed, s.epoch, id, kBlockOperation + static_cast<uint32_t>(index));
  const int operation = below(w.word[0], kOperations);
  return {coin(w.word[2]) ? operation : static_cast<int>(kIdentity), 1 + below(w.word[1], s.magnitude - 1),
          coin(w.word[3])};
}

// The reference's rule: half the side before a uniform centre but not below 0, then a full side on, ends
// included. The centre is a 24-bit fraction of the side, so this is exact.
DLP_HOST_DEVICE int cutout_start(uint32_t word, int side, int size) {
  const int64_t start = int64_t{word >> 8} * side - (int64_t{size} << 23);
  return start > 0 ? static_cast<int>(start >> 24) : 0;
}

DLP_HOST_DEVICE Box draw_cutout(const Settings& s, int64_t id) {
  if (s.cutout == 0) return {0, 0, -1, -1};
  const Words w = philox(s.seed, s.epoch, id, kBlockCutout);
  const int x0 = cutout_start(w.word[0], s.width, s.cutout), y0 = cutout_start(w.word[1], s.height, s.cutout);
  const int x1 = x0 + s.cutout, y1 = y0 + s.cutout;
  return {x0, y0, x1 < s.width ? x1 : s.width - 1, y1 < s.height ? y1 : s.height - 1};
}

// Reflection without repeating the border; |i| stays below 2n because pad < n.
DLP_HOST_DEVICE int reflect(int i, int n) { return i < 0 ? -i : i < n ? i : 2 * (n - 1) - i; }

DLP_HOST_DEVICE int source_row(const View& v, const Settings& s, int y) {
  return reflect(y + v.dy - s.pad, s.height);
}

DLP_HOST_DEVICE int source_column(const View& v, const Settings& s, int x) {
  const int column = reflect(x + v.dx - s.pad, s.width);
  return v.flip ? s.width - 1 - column : column;
}

// The number that an operation takes for a level, in the reference's value ranges.
DLP_HOST_DEVICE float blend_factor(int level) { return static_cast<float>(level * 0.9 / kLevels + 0.05); }
DLP_HOST_DEVICE int posterize_mask(int level) { return 0xFF & ~((1 << (8 - (level * 4 / kLevels + 4))) - 1); }
DLP_HOST_DEVICE int solarize_threshold(int level) { return 256 - level * 256 / kLevels; }
DLP_HOST_DEVICE double slope(const Draw& d) { return (d.negative ? -1.0 : 1.0) * (d.level * 0.3 / kLevels); }
DLP_HOST_DEVICE int shift(const Draw& d, int side) { return static_cast<int>(slope(d) * side); }

DLP_HOST_DEVICE uint8_t blend(int degenerate, int value, float factor) {
  const float mixed = static_cast<float>(degenerate) + factor * static_cast<float>(value - degenerate);
  return static_cast<uint8_t>(static_cast<int>(mixed));  // by way of int: compilers vectorise that
}

DLP_HOST_DEVICE int luma(int red, int green, int blue) {
  return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
}

// Mean luma rounded half up.
DLP_HOST_DEVICE int rounded_mean(int64_t sum, int64_t count) {
  return static_cast<int>((2 * sum + count) / (2 * count));
}

// Pillow's SMOOTH kernel (centre 5, neighbours 1, over 13) of a 3x3 sum with the centre counted five times.
// Pillow rounds sum/13 in floats; 2*sum + 13 is odd and never a multiple of 26, so no rounding error can
// change the result. A multiplication and a shift do the division by 26: exact for every sum of 13 bytes
// (asserted below), and it fits into 32 bits.
constexpr DLP_HOST_DEVICE int smooth(int weighted_sum) { return ((2 * weighted_sum + 13) * 10083) >> 18; }

constexpr bool smooth_is_exact() {
  for (int sum = 0; sum <= 13 * 255; ++sum) {
    if (smooth(sum) != (2 * sum + 13) / 26) return false;
  }
  return true;
}
static_assert(smooth_is_exact());

DLP_HOST_DEVICE uint8_t clip_byte(int v) { return static_cast<uint8_t>(v < 0 ? 0 : v > 255 ? 255 : v); }

// Stretches [low, high] to [0, 255].
DLP_HOST_DEVICE uint8_t auto_contrast(int value, int low, int high) {
  if (high <= low) return static_cast<uint8_t>(value);
  const double scale = 255.0 / (high - low);
  return clip_byte(static_cast<int>(value * scale + -low * scale));
}

// `before` counts the channel's pixels with a smaller value, `last` those with its largest value, `count`
// all.
DLP_HOST_DEVICE uint8_t equalize(int value, int before, int last, int count) {
  const int step = (count - last) / 255;
  return step == 0 ? static_cast<uint8_t>(value) : clip_byte((step / 2 + before) / step);
}

// What the operations on one channel value do; `mean` is the rounded mean luma of the image (contrast only).
DLP_HOST_DEVICE uint8_t pointwise(const Draw& d, int value, int mean) {
  switch (d.operation) {
    case kBrightness:
      return blend(0, value, blend_factor(d.level));
    case kContrast:
      return blend(mean, value, blend_factor(d.level));
    case kPosterize:
      return static_cast<uint8_t>(value & posterize_mask(d.level));
    case kSolarize:
      return static_cast<uint8_t>(value < solarize_threshold(d.level) ? value : 255 - value);
    default:
      return static_cast<uint8_t>(value);
  }
}

// Output pixel (x, y) is the input pixel nearest to (xx + x*a + y*b, yy + x*d + y*e) >> 16, black outside:
// Pillow's affine transform in 16.16 fixed point.
struct Affine {
  int a, b, xx, d, e, yy;
};

DLP_HOST_DEVICE int fixed_point(double v) { return static_cast<int>(floor(v * 65536.0 + 0.5)); }

DLP_HOST_DEVICE Affine fixed_affine(double a, double b, double c, double d, double e, double f) {
  return {fixed_point(a), fixed_point(b), fixed_point(c + a * 0.5 + b * 0.5),
          fixed_point(d), fixed_point(e), fixed_point(f + d * 0.5 + e * 0.5)};
}

// Cosine and sine of Pillow's rotation by 3, 6, .. 27 degrees, rounded to 15 decimals as it does. A negative
// angle is taken modulo 360, which moves the last decimal of three of the sines.
DLP_HOST_DEVICE Affine rotation(const Draw& draw, int height, int width) {
  const double cosines[kLevels - 1] = {0.998629534754574, 0.994521895368273, 0.987688340595138,
                                       0.978147600733806, 0.965925826289068, 0.951056516295154,
                                       0.933580426497202, 0.913545457642601, 0.891006524188368};
  const double sines[kLevels - 1] = {0.052335956242944, 0.104528463267653, 0.156434465040231,
                                     0.207911690817759, 0.258819045102521, 0.309016994374947,
                                     0.3583679495453,   0.4067366430758,   0.453990499739547};
  const double negative_sines[kLevels - 1] = {0.052335956242944, 0.104528463267653, 0.156434465040231,
                                              0.20791169081776,  0.258819045102521, 0.309016994374948,
                                              0.358367949545301, 0.4067366430758,   0.453990499739547};
  const double a = cosines[draw.level - 1];
  const double b = draw.negative ? negative_sines[draw.level - 1] : -sines[draw.level - 1];
  const double x = width / 2.0, y = height / 2.0;
  return fixed_affine(a, b, a * -x + b * -y + x, -b, a, -b * -x + a * -y + y);
}

// The affine map of a geometric operation.
DLP_HOST_DEVICE Affine affine_of(const Draw& d, int height, int width) {
  switch (d.operation) {
    case kRotate:
      return rotation(d, height, width);
    case kShearX:
      return fixed_affine(1, slope(d), 0, 0, 1, 0);
    case kShearY:
      return fixed_affine(1, 0, 0, slope(d), 1, 0);
    case kTranslateX:
      return fixed_affine(1, 0, shift(d, width), 0, 1, 0);
    default:  // kTranslateY
      return fixed_affine(1, 0, 0, 0, 1, shift(d, height));
  }
}

DLP_HOST_DEVICE bool is_geometric(int operation) {
  return operation == kRotate || operation == kShearX || operation == kShearY || operation == kTranslateX ||
         operation == kTranslateY;
}

}  // namespace dlp::augment

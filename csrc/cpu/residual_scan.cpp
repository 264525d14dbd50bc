#include "cpu/residual_scan.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

namespace dlp::residual_scan {
namespace {

// The loops that pay for wide registers. Each is written once; DLP_SCAN_KERNELS compiles it for an instruction set,
// and the compiler vectorises it. All sets give the same bits.
struct ScanKernels {
  // sums[i] = the blur of bytes[i - 9], bytes[i - 6], .. bytes[i + 9]
  void (*blur_row)(const uint8_t* bytes, int64_t n, uint16_t* sums);
  // out[i] = residual of bytes[i] less mean[i], by seven blurred rows
  void (*residual_row)(const uint8_t* bytes, const uint16_t* const* rows, const float* mean, int64_t n, float* out);
  // sums[l] += the squares of values l, l + kLanes, ..; n may be any number
  void (*add_squares)(const float* values, int64_t n, float* sums);
  void (*scale)(float* values, int64_t n, float factor);
  // contrast[i] = spread of the nine bytes of a channel from i on, of rows top, middle and bottom
  void (*spread_row)(const uint8_t* top, const uint8_t* middle, const uint8_t* bottom, int64_t n, uint8_t* contrast);
};

#define DLP_BODY [[gnu::always_inline]] inline void

DLP_BODY blur_row_body(const uint8_t* __restrict b, int64_t n, uint16_t* __restrict sums) {
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t one = static_cast<uint16_t>(b[i - 3] + b[i + 3]), two = static_cast<uint16_t>(b[i - 6] + b[i + 6]);
    const uint16_t three = static_cast<uint16_t>(b[i - 9] + b[i + 9]);
    sums[i] = static_cast<uint16_t>(kCentre * b[i] + kOne * one + kTwo * two + kThree * three);
  }
}

DLP_BODY residual_row_body(const uint8_t* __restrict bytes, const uint16_t* const* rows,
                           const float* __restrict mean, int64_t n, float* __restrict out) {
  const uint16_t *a = rows[0], *b = rows[1], *c = rows[2], *d = rows[3], *e = rows[4], *f = rows[5], *g = rows[6];
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t blurred = blur(d[i], uint32_t{c[i]} + e[i], uint32_t{b[i]} + f[i], uint32_t{a[i]} + g[i]);
    out[i] = residual(bytes[i], blurred) - mean[i];
  }
}

DLP_BODY add_squares_body(const float* __restrict values, int64_t n, float* __restrict sums) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) sums[l] += values[i + l] * values[i + l];
  }
  for (int64_t l = 0; i + l < n; ++l) sums[l] += values[i + l] * values[i + l];
}

DLP_BODY scale_body(float* __restrict values, int64_t n, float factor) {
  for (int64_t i = 0; i < n; ++i) values[i] *= factor;
}

DLP_BODY spread_row_body(const uint8_t* __restrict top, const uint8_t* __restrict middle,
                         const uint8_t* __restrict bottom, int64_t n, uint8_t* __restrict contrast) {
  constexpr int64_t kBlock = 192;
  uint8_t high[kBlock + 6], low[kBlock + 6];
  for (int64_t start = 0; start < n; start += kBlock) {
    const int64_t count = n - start < kBlock ? n - start : kBlock;
    for (int64_t i = 0; i < count + 6; ++i) {
      const uint8_t t = top[start + i], m = middle[start + i], b = bottom[start + i];
      const uint8_t more = t > m ? t : m, less = t > m ? m : t;
      high[i] = more > b ? more : b;
      low[i] = less < b ? less : b;
    }
    for (int64_t i = 0; i < count; ++i) {
      const uint8_t more = high[i] > high[i + 3] ? high[i] : high[i + 3];
      const uint8_t less = low[i] < low[i + 3] ? low[i] : low[i + 3];
      contrast[start + i] =
          static_cast<uint8_t>((more > high[i + 6] ? more : high[i + 6]) - (less < low[i + 6] ? less : low[i + 6]));
    }
  }
}

#define DLP_SCAN_KERNELS(NAME, TARGET)                                                                           \
  struct NAME {                                                                                                  \
    TARGET static void blur_row(const uint8_t* bytes, int64_t n, uint16_t* sums) { blur_row_body(bytes, n, sums); } \
    TARGET static void residual_row(const uint8_t* bytes, const uint16_t* const* rows, const float* mean,        \
                                    int64_t n, float* out) {                                                     \
      residual_row_body(bytes, rows, mean, n, out);                                                              \
    }                                                                                                            \
    TARGET static void add_squares(const float* values, int64_t n, float* sums) {                                \
      add_squares_body(values, n, sums);                                                                         \
    }                                                                                                            \
    TARGET static void scale(float* values, int64_t n, float factor) { scale_body(values, n, factor); }          \
    TARGET static void spread_row(const uint8_t* top, const uint8_t* middle, const uint8_t* bottom, int64_t n,   \
                                  uint8_t* contrast) {                                                           \
      spread_row_body(top, middle, bottom, n, contrast);                                                         \
    }                                                                                                            \
    static constexpr ScanKernels kAll{blur_row, residual_row, add_squares, scale, spread_row};                   \
  }

DLP_SCAN_KERNELS(Baseline, );
#if defined(__x86_64__)
DLP_SCAN_KERNELS(Avx2, __attribute__((target("avx2"))));
DLP_SCAN_KERNELS(Avx512, __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512"))));

// The widest set that this processor has; DLP_FAST_SIMD=baseline|avx2|avx512 lowers it, for tests and comparisons.
const ScanKernels& widest() {
  const char* wish = std::getenv("DLP_FAST_SIMD");
  const std::string_view level = wish == nullptr ? "" : wish;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (level == "baseline" || !__builtin_cpu_supports("avx2")) return Baseline::kAll;
  if (level == "avx2" || !avx512) return Avx2::kAll;
  return Avx512::kAll;
}
#else
const ScanKernels& widest() { return Baseline::kAll; }
#endif

const ScanKernels& scan_kernels() {
  static const ScanKernels& chosen = widest();
  return chosen;
}

// 1 / length of n values, 0 where the length is 0.
float inverse_length(const ScanKernels& kernels, const float* values, int64_t n) {
  alignas(64) float sums[kLanes] = {};
  kernels.add_squares(values, n, sums);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int l = 0; l < half; ++l) sums[l] += sums[l + half];
  }
  return sums[0] > 0.0f ? 1.0f / std::sqrt(sums[0]) : 0.0f;
}

}  // namespace

void high_pass_residual_cpu(const uint8_t* images, const float* mean, int64_t begin, int64_t end, int height,
                            int width, float* out) {
  const ScanKernels& kernels = scan_kernels();
  const int64_t row = int64_t{width} * kChannels, size = row * height;
  constexpr int kPad = kRadius * kChannels;
  std::vector<uint8_t> padded(row + 2 * kPad);
  std::vector<uint16_t> blurred(size);
  const uint16_t* rows[2 * kRadius + 1];
  for (int64_t image = begin; image < end; ++image) {
    const uint8_t* pixels = images + image * size;
    float* values = out + image * size;
    for (int y = 0; y < height; ++y) {
      const uint8_t* line = pixels + y * row;
      std::memcpy(padded.data() + kPad, line, row);
      for (int k = 0; k < kPad; ++k) {  // pixels beyond the border are the border's
        padded[k] = line[k % kChannels];
        padded[kPad + row + k] = line[row - kChannels + k % kChannels];
      }
      kernels.blur_row(padded.data() + kPad, row, blurred.data() + y * row);
    }
    for (int y = 0; y < height; ++y) {
      for (int k = -kRadius; k <= kRadius; ++k) {
        rows[k + kRadius] = blurred.data() + std::clamp(y + k, 0, height - 1) * row;
      }
      kernels.residual_row(pixels + y * row, rows, mean + y * row, row, values + y * row);
    }
    kernels.scale(values, size, inverse_length(kernels, values, size));
  }
}

void window_hashes_cpu(const uint8_t* images, int64_t begin, int64_t end, int height, int width, int contrast,
                       int64_t* out) {
  const ScanKernels& kernels = scan_kernels();
  const int64_t row = int64_t{width} * kChannels, size = row * height;
  const int columns = width - kWindow + 1, lines = height - kWindow + 1;
  std::vector<uint8_t> spread(int64_t{columns} * kChannels);
  for (int64_t image = begin; image < end; ++image) {
    int64_t* hashes = out + image * lines * columns;
    for (int y = 0; y < lines; ++y) {
      const uint8_t* top = images + image * size + y * row;
      kernels.spread_row(top, top + row, top + 2 * row, spread.size(), spread.data());
      for (int x = 0; x < columns; ++x, ++hashes) {
        const uint8_t* s = spread.data() + x * kChannels;
        if (std::max({s[0], s[1], s[2]}) < contrast) {
          *hashes = -1;
          continue;
        }
        uint64_t sum = 0;
        for (int k = 0; k < kWindow * kWindow; ++k) {
          const uint8_t* pixel = top + k / kWindow * row + (x + k % kWindow) * kChannels;
          sum += colour(pixel[0], pixel[1], pixel[2]) * factor(k);
        }
        *hashes = finish_hash(sum);
      }
    }
  }
}

}  // namespace dlp::residual_scan

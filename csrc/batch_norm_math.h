// Batch norm with ReLU: how the sums are cut, and the arithmetic of a value and of a channel, once for scalars (g++ and
// nvcc) and for SIMD lanes.
//
// A channels-last batch is a matrix [rows, channels], rows = b * H * W. The order of its sums is part of the definition,
// so that any number of threads, every instruction set and the GPU give the same bits:
//   - A block is about kBlock values, whole rows. Row r of it enters chain r mod kChains, in fp32; the chains are added as
//     (0 + 1) + (2 + 3). Squares are about the block's own mean.
//   - A part is some blocks that follow each other. Block i of it enters sum i mod kSlots, in float64; part p enters sum
//     p mod kLanes. Such sums are added as a tree: i with i + n / 2, then n / 4, ..., 1.
// So there are at most kPairs sums of parts and channels, which each block of threads of a GPU can add up by itself.
// Neither compiler may contract a*b+c (-ffp-contract=off, -fmad=false).
//
// Internal linkage on purpose: see entropy_math.h.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define DLP_ALWAYS __host__ __device__ __forceinline__
#else
#define DLP_ALWAYS [[gnu::always_inline]] inline
#endif

namespace dlp::batch_norm {
namespace {

constexpr int kGroup = 16;    // the number of channels is a multiple of it
constexpr int kBlock = 8192;  // values, 32 KiB of fp32: what is read twice is read from the first-level cache
constexpr int kChains = 4;
constexpr int kSlots = 8;
constexpr int kLanes = 32;
constexpr int kPairs = 4096;

struct Cut {
  int64_t rows, channels;
  int64_t of_block;  // rows of a block; the last one may have fewer
  int64_t blocks;
  int64_t of_part;   // blocks of a part; the last one may have fewer
  int64_t parts;
};

DLP_ALWAYS int64_t at_least_one(int64_t n) { return n < 1 ? 1 : n; }

DLP_ALWAYS Cut cut_of(int64_t rows, int64_t channels) {
  Cut cut{rows, channels, at_least_one(kBlock / channels), 0, 0, 0};
  cut.blocks = (rows + cut.of_block - 1) / cut.of_block;
  const int64_t most = at_least_one(kPairs / channels);
  cut.of_part = at_least_one((cut.blocks + most - 1) / most);
  cut.parts = (cut.blocks + cut.of_part - 1) / cut.of_part;
  return cut;
}

// Of a block, a part or all rows: sums of values and of squares about zero, or of gradients and of gradients times
// (x - mean).
struct alignas(16) Pair {
  double first, second;
};
DLP_ALWAYS void add(const Pair& other, Pair& to) {
  to.first += other.first;
  to.second += other.second;
}

// What a block's fp32 sums are as a pair. Squares about zero and not about a mean that is yet to come: float64 has 29 bits
// more than the values, so what cancels later is lost only where fp32 holds no digit of the deviations either.
DLP_ALWAYS Pair pair_of_moments(float sum, float squares, double rows) {
  return {sum, squares + static_cast<double>(sum) * sum / rows};
}

struct Moments {
  float mean, variance;
};
DLP_ALWAYS Moments moments_of(const Pair& sums, double rows) {
  const double mean = sums.first / rows, variance = (sums.second - sums.first * mean) / rows;
  return {static_cast<float>(mean), static_cast<float>(variance < 0.0 ? 0.0 : variance)};  // a NaN stays one
}

// 1 / sqrt(variance + eps), rounded once
DLP_ALWAYS float inverse_deviation(float variance, double eps) {
  return static_cast<float>(1.0 / sqrt(static_cast<double>(variance) + eps));
}

// y = max(0, x * scale + shift)
struct Affine {
  float scale, shift;
};
DLP_ALWAYS Affine affine_of(const Moments& of, float weight, float bias, double eps) {
  const float scale = weight * inverse_deviation(of.variance, eps);
  return {scale, bias - of.mean * scale};
}

// Gradients of weight and bias, and the rest of the input's: scale * g + of_input * (x - mean) + constant, with g that of
// y where y > 0.
struct Slope {
  float of_weight, of_bias, of_input, constant;
};
DLP_ALWAYS Slope slope_of(const Pair& sums, float variance, float scale, double rows, double eps) {
  const double inverse = inverse_deviation(variance, eps);
  return {static_cast<float>(sums.second * inverse), static_cast<float>(sums.first),
          static_cast<float>(-scale * inverse * inverse * sums.second / rows),
          static_cast<float>(-scale * sums.first / rows)};
}

// Running statistics after a batch whose statistics enter with `share`, by the formula of torch.lerp.
DLP_ALWAYS float moved(float from, float to, float share) {
  return share < 0.5f ? from + share * (to - from) : to - (to - from) * (1.0f - share);
}
// The variance that enters them is that of the population: over rows - 1.
DLP_ALWAYS float unbiased(float variance, double rows) {
  return variance * static_cast<float>(rows / (rows - 1.0));
}

// By reference: a vector wider than the registers of the file's instruction set must not be passed by value.
template <class V>
DLP_ALWAYS void normalise(const V& x, const V& scale, const V& shift, V& y) {
  y = x * scale + shift;
}
template <class V>
DLP_ALWAYS void keep_where_positive(const V& y, V& of) {
  of = y <= 0.0f ? V{} : of;  // a NaN stays one
}
// `g`: the gradient of y on the way in, of x on the way out
template <class V>
DLP_ALWAYS void gradient_of_input(const V& x, const V& scale, const V& mean, const V& of_input, const V& constant, V& g) {
  g = scale * g + (of_input * (x - mean) + constant);
}

}  // namespace
}  // namespace dlp::batch_norm

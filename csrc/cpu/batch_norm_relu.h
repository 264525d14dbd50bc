// CPU kernels of `batch_norm_relu`, on raw pointers; the caller brings the threads.
//
// An image batch in channels-last memory is a matrix [rows, channels], rows = b * H * W. It is worked in blocks of
// kBlock values, whose sums are fp32 in a fixed order; those of the blocks are added in float64, block by block. So the
// bits hang neither on the number of threads nor on the width of the registers.
#pragma once

#include <cstdint>

namespace dlp::batch_norm {

constexpr int kGroup = 16;     // channels worked at a time; the number of channels is a multiple of it
constexpr int kBlock = 8192;   // values, 32 KiB of fp32: what is read twice is read from the first-level cache

constexpr int64_t rows_of_block(int64_t channels) { return channels < kBlock ? kBlock / channels : 1; }

// y = max(0, x * scale + shift), channel by channel; fp32 [channels] each. mean: what the backward pass centres on.
struct Affine {
  const float *scale, *shift, *mean;
};

// The input's gradient is of_gradient * g + of_input * (x - mean) + constant; g: that of y where y > 0.
struct Slope {
  const float *of_gradient, *of_input, *constant;
};

template <class Element>  // float, or uint16_t: the bits of a bf16
struct Rows {
  // sum, and sum of squares about the block's own mean, of rows begin..end-1 (at most a block): [channels] each
  void (*moments)(const Element* x, int64_t rows, int64_t channels, float* sum, float* squares);
  void (*forward)(const Element* x, int64_t rows, int64_t channels, Affine by, Element* y);
  // sums over rows of g and of g * (x - mean): [channels] each
  void (*gradient_sums)(const Element* gradient, const Element* x, int64_t rows, int64_t channels, Affine by,
                        float* sum, float* product);
  void (*backward)(const Element* gradient, const Element* x, int64_t rows, int64_t channels, Affine by, Slope slope,
                   Element* out);
};

// Those for the widest registers of this processor; DLP_FAST_SIMD=baseline|avx2|avx512 lowers the choice.
template <class Element>
const Rows<Element>& rows_kernels();

template <class Element>
Rows<Element> rows_avx2();
template <class Element>
Rows<Element> rows_avx512();

}  // namespace dlp::batch_norm

// CPU kernels of `batch_norm_relu`, on raw pointers; the caller brings the threads. What is summed in which order:
// batch_norm_math.h.
#pragma once

#include <cstdint>
#include <functional>

namespace dlp::batch_norm {

// Calls body(0), ..., body(count - 1), from any thread and in any order.
using Parallel = std::function<void(int64_t count, const std::function<void(int64_t)>& body)>;

// fp32 [channels] each: y = max(0, x * scale + shift), and what the backward pass centres on.
struct Affines {
  const float *scale, *shift, *mean;
};
// The rest of the input's gradient: scale * g + of_input * (x - mean) + constant.
struct Slopes {
  const float *of_input, *constant;
};

template <class Element>  // float, or uint16_t: the bits of a bf16
struct Rows {
  // sum, and sum of squares about the block's own mean, of a block's rows: [channels] each
  void (*moments)(const Element* x, int64_t rows, int64_t channels, float* sum, float* squares);
  void (*forward)(const Element* x, int64_t rows, int64_t channels, Affines by, Element* y);
  // sums over rows of g and of g * (x - mean), g: that of y where y > 0: [channels] each
  void (*gradient_sums)(const Element* gradient, const Element* x, int64_t rows, int64_t channels, Affines by,
                        float* sum, float* product);
  void (*backward)(const Element* gradient, const Element* x, int64_t rows, int64_t channels, Affines by, Slopes slopes,
                   Element* out);
};

// Those for the widest registers of this processor; DLP_FAST_SIMD=baseline|avx2|avx512 lowers the choice.
template <class Element>
const Rows<Element>& rows_kernels();

template <class Element>
Rows<Element> rows_avx2();
template <class Element>
Rows<Element> rows_avx512();

// A channels-last batch as a matrix, and fp32 [channels] each.
template <class Element>
struct Layer {
  const Element* x;
  int64_t rows, channels;
  const float *weight, *bias;
  double eps;
};

// y by the batch's own mean and variance (over all rows), which are written too.
template <class Element>
void forward_cpu(const Layer<Element>& layer, const Parallel& parallel, Element* y, float* mean, float* variance);

// y by those that are given.
template <class Element>
void eval_cpu(const Layer<Element>& layer, const float* mean, const float* variance, const Parallel& parallel,
              Element* y);

// Gradients of x, weight and bias; `gradient`: that of y.
template <class Element>
void backward_cpu(const Element* gradient, const Layer<Element>& layer, const float* mean, const float* variance,
                  const Parallel& parallel, Element* out, float* of_weight, float* of_bias);

// Lets a batch of `rows` enter the running statistics with `share`.
void enter_running_statistics(const float* mean, const float* variance, int64_t channels, int64_t rows, double share,
                              float* running_mean, float* running_variance);

}  // namespace dlp::batch_norm

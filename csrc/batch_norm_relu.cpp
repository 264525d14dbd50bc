// `batch_norm_relu`, its backward pass and its form for running statistics: checks, allocation, threads and dispatch; the
// kernels are in cpu/batch_norm_relu.cpp.
#include "cpu/batch_norm_relu.h"

#include <cmath>
#include <tuple>
#include <vector>

#include "check.h"

namespace dlp {
namespace {

using batch_norm::Affine;
using batch_norm::rows_kernels;

constexpr int64_t kGrain = 8;  // blocks of 32 KiB, some 20 us of work: less does not pay for waking a thread

void check_input(const Tensor& x) {
  DLP_CHECK_DIM(x, 4);
  DLP_CHECK(x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::BFloat16,
            "x must be float32 or bfloat16, got scalar type ", static_cast<int>(x.scalar_type()));
  DLP_CHECK(x.size(1) > 0 && x.size(1) % batch_norm::kGroup == 0, "the channels of x must be a multiple of ",
            batch_norm::kGroup, ", got shape ", shape_text(x));
  DLP_CHECK(x.numel() > 0, "x must have at least one value a channel, got shape ", shape_text(x));
  const int64_t c = x.size(1), w = x.size(3), h = x.size(2);
  DLP_CHECK(x.stride(1) == 1 && (w == 1 || x.stride(3) == c) && (h == 1 || x.stride(2) == c * w) &&
                (x.size(0) == 1 || x.stride(0) == c * w * h),
            "x must be channels-last; call .contiguous(memory_format=torch.channels_last) first");
}

const float* of_channel(const Tensor& value, const Tensor& x, const char* name) {
  DLP_CHECK(value.dim() == 1 && value.size(0) == x.size(1) && value.scalar_type() == ScalarType::Float &&
                value.is_contiguous(),
            name, " must be float32 [", x.size(1), "] and contiguous, got shape ", shape_text(value));
  return static_cast<const float*>(value.data_ptr());
}

// 1 / sqrt(var + eps), rounded once
float inverse_deviation(float variance, double eps) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(variance) + eps));
}

struct Channels {
  std::vector<float> scale, shift;
  Affine by;
  Channels(int64_t n, const float* mean, const float* variance, const float* weight, const float* bias, double eps)
      : scale(n), shift(n), by{scale.data(), shift.data(), mean} {
    for (int64_t c = 0; c < n; ++c) {
      scale[c] = weight[c] * inverse_deviation(variance[c], eps);
      shift[c] = bias[c] - mean[c] * scale[c];
    }
  }
};

// The rows of a channels-last tensor, in blocks; body(block, first value, rows of the block).
struct Blocks {
  int64_t channels, rows, of_block, count;
  explicit Blocks(const Tensor& x)
      : channels(x.size(1)),
        rows(x.numel() / channels),
        of_block(batch_norm::rows_of_block(channels)),
        count((rows + of_block - 1) / of_block) {}
  int64_t size(int64_t block) const { return std::min(of_block, rows - block * of_block); }
  template <class Body>
  void each(const Body& body) const {
    parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) body(block, block * of_block * channels, size(block));
    });
  }
};

template <class Element>
void forward(const Tensor& x, const Affine& by, Tensor& y) {
  const Blocks blocks(x);
  const auto* from = static_cast<const Element*>(x.data_ptr());
  auto* to = static_cast<Element*>(y.data_ptr());
  const auto& kernels = rows_kernels<Element>();
  blocks.each([&](int64_t, int64_t first, int64_t rows) {
    kernels.forward(from + first, rows, blocks.channels, by, to + first);
  });
}

template <class Element>
void moments(const Tensor& x, float* mean, float* variance) {
  const Blocks blocks(x);
  const auto* from = static_cast<const Element*>(x.data_ptr());
  const int64_t n = blocks.channels;
  std::vector<float> sums(blocks.count * n), squares(blocks.count * n);
  const auto& kernels = rows_kernels<Element>();
  blocks.each([&](int64_t block, int64_t first, int64_t rows) {
    kernels.moments(from + first, rows, n, sums.data() + block * n, squares.data() + block * n);
  });
  std::vector<double> total(n), about(n);
  for (int64_t i = 0; i < blocks.count * n; ++i) total[i % n] += sums[i];
  for (int64_t c = 0; c < n; ++c) total[c] /= static_cast<double>(blocks.rows);
  for (int64_t block = 0; block < blocks.count; ++block) {  // Chan, Golub and LeVeque 1979
    const double rows = static_cast<double>(blocks.size(block));
    for (int64_t c = 0; c < n; ++c) {
      const double apart = sums[block * n + c] / rows - total[c];
      about[c] += squares[block * n + c] + rows * apart * apart;
    }
  }
  for (int64_t c = 0; c < n; ++c) {
    mean[c] = static_cast<float>(total[c]);
    variance[c] = static_cast<float>(about[c] / static_cast<double>(blocks.rows));
  }
}

template <class Element>
void backward(const Tensor& gradient, const Tensor& x, const Affine& by, const float* variance, double eps,
              Tensor& out, float* of_weight, float* of_bias) {
  const Blocks blocks(x);
  const int64_t n = blocks.channels;
  const auto* from = static_cast<const Element*>(x.data_ptr());
  const auto* given = static_cast<const Element*>(gradient.data_ptr());
  auto* to = static_cast<Element*>(out.data_ptr());
  const auto& kernels = rows_kernels<Element>();
  std::vector<float> sums(blocks.count * n), products(blocks.count * n);
  blocks.each([&](int64_t block, int64_t first, int64_t rows) {
    kernels.gradient_sums(given + first, from + first, rows, n, by, sums.data() + block * n,
                          products.data() + block * n);
  });
  std::vector<double> sum(n), product(n);
  for (int64_t i = 0; i < blocks.count * n; ++i) sum[i % n] += sums[i], product[i % n] += products[i];
  std::vector<float> of_input(n), constant(n);
  const double rows = static_cast<double>(blocks.rows);
  for (int64_t c = 0; c < n; ++c) {
    const double inverse = inverse_deviation(variance[c], eps);
    of_weight[c] = static_cast<float>(product[c] * inverse);
    of_bias[c] = static_cast<float>(sum[c]);
    of_input[c] = static_cast<float>(-by.scale[c] * inverse * inverse * product[c] / rows);
    constant[c] = static_cast<float>(-by.scale[c] * sum[c] / rows);
  }
  const batch_norm::Slope slope{by.scale, of_input.data(), constant.data()};
  blocks.each([&](int64_t, int64_t first, int64_t many) {
    kernels.backward(given + first, from + first, many, n, by, slope, to + first);
  });
}

std::tuple<Tensor, Tensor, Tensor> forward_on_cpu(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                                  double eps) {
  check_input(x);
  const float *of_weight = of_channel(weight, x, "weight"), *of_bias = of_channel(bias, x, "bias");
  Tensor y = torch::stable::empty_like(x);
  Tensor mean = torch::stable::new_empty(x, {x.size(1)}, ScalarType::Float);
  Tensor variance = torch::stable::new_empty(x, {x.size(1)}, ScalarType::Float);
  auto *means = static_cast<float*>(mean.data_ptr()), *variances = static_cast<float*>(variance.data_ptr());
  const bool wide = x.scalar_type() == ScalarType::Float;
  wide ? moments<float>(x, means, variances) : moments<uint16_t>(x, means, variances);
  const Channels channels(x.size(1), means, variances, of_weight, of_bias, eps);
  wide ? forward<float>(x, channels.by, y) : forward<uint16_t>(x, channels.by, y);
  return {y, mean, variance};
}

Tensor eval_on_cpu(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& mean,
                   const Tensor& variance, double eps) {
  check_input(x);
  const Channels channels(x.size(1), of_channel(mean, x, "mean"), of_channel(variance, x, "var"),
                          of_channel(weight, x, "weight"), of_channel(bias, x, "bias"), eps);
  Tensor y = torch::stable::empty_like(x);
  x.scalar_type() == ScalarType::Float ? forward<float>(x, channels.by, y) : forward<uint16_t>(x, channels.by, y);
  return y;
}

std::tuple<Tensor, Tensor, Tensor> backward_on_cpu(const Tensor& gradient, const Tensor& x, const Tensor& weight,
                                                   const Tensor& bias, const Tensor& mean, const Tensor& variance,
                                                   double eps) {
  check_input(x);
  check_input(gradient);
  for (int64_t d = 0; d < 4; ++d) {
    DLP_CHECK(gradient.size(d) == x.size(d), "the gradient must have the shape of x, ", shape_text(x), ", got ",
              shape_text(gradient));
  }
  DLP_CHECK(gradient.scalar_type() == x.scalar_type(), "the gradient must have the dtype of x");
  const float* variances = of_channel(variance, x, "var");
  const Channels channels(x.size(1), of_channel(mean, x, "mean"), variances, of_channel(weight, x, "weight"),
                          of_channel(bias, x, "bias"), eps);
  Tensor out = torch::stable::empty_like(x);
  Tensor of_weight = torch::stable::new_empty(x, {x.size(1)}, ScalarType::Float);
  Tensor of_bias = torch::stable::new_empty(x, {x.size(1)}, ScalarType::Float);
  const auto run = x.scalar_type() == ScalarType::Float ? &backward<float> : &backward<uint16_t>;
  run(gradient, x, channels.by, variances, eps, out, static_cast<float*>(of_weight.data_ptr()),
      static_cast<float*>(of_bias.data_ptr()));
  return {out, of_weight, of_bias};
}

}  // namespace
}  // namespace dlp

#ifndef DLP_WITH_CUDA  // the library of the CUDA kernels leaves the CPU to the other one
STABLE_TORCH_LIBRARY_IMPL(dlp_fast, CPU, m) {
  m.impl("batch_norm_relu", DLP_BOX(&dlp::forward_on_cpu));
  m.impl("batch_norm_relu_eval", DLP_BOX(&dlp::eval_on_cpu));
  m.impl("batch_norm_relu_backward", DLP_BOX(&dlp::backward_on_cpu));
}
#endif

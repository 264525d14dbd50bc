// `batch_norm_relu`, its backward pass and its form for running statistics: checks, allocation and dispatch; the kernels are
// in cpu/batch_norm_relu.cpp and cuda/batch_norm_relu.cu.
#include <tuple>

#include "check.h"
#include "cpu/batch_norm_relu.h"
#include "batch_norm_math.h"

#ifdef DLP_WITH_CUDA
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "cuda/batch_norm_relu.h"
#endif

namespace dlp {
namespace {

constexpr int64_t kGrain = 8;  // blocks of 32 KiB, some 20 us of work: less does not pay for waking a thread

bool is_one_of(ScalarType type, bool with_half) {
  return type == ScalarType::Float || type == ScalarType::BFloat16 || (with_half && type == ScalarType::Half);
}

void check_input(const Tensor& x, bool with_half) {
  DLP_CHECK_DIM(x, 4);
  DLP_CHECK(is_one_of(x.scalar_type(), with_half), "x must be float32 or bfloat16",
            with_half ? " or float16" : "", ", got scalar type ", static_cast<int>(x.scalar_type()));
  DLP_CHECK(x.size(1) > 0 && x.size(1) % batch_norm::kGroup == 0, "the channels of x must be a multiple of ",
            batch_norm::kGroup, ", got shape ", shape_text(x));
  DLP_CHECK(x.numel() > 0, "x must have at least one value a channel, got shape ", shape_text(x));
  const int64_t c = x.size(1), w = x.size(3), h = x.size(2);
  DLP_CHECK(x.stride(1) == 1 && (w == 1 || x.stride(3) == c) && (h == 1 || x.stride(2) == c * w) &&
                (x.size(0) == 1 || x.stride(0) == c * w * h),
            "x must be channels-last; call .contiguous(memory_format=torch.channels_last) first");
}

void check_gradient(const Tensor& gradient, const Tensor& x, bool with_half) {
  check_input(gradient, with_half);
  for (int64_t d = 0; d < 4; ++d) {
    DLP_CHECK(gradient.size(d) == x.size(d), "the gradient must have the shape of x, ", shape_text(x), ", got ",
              shape_text(gradient));
  }
  DLP_CHECK(gradient.scalar_type() == x.scalar_type(), "the gradient must have the dtype of x");
  DLP_CHECK(gradient.device() == x.device(), "the gradient must be on the device of x");
}

float* of_channel(const Tensor& value, const Tensor& x, const char* name) {
  DLP_CHECK(value.dim() == 1 && value.size(0) == x.size(1) && value.scalar_type() == ScalarType::Float &&
                value.is_contiguous(),
            name, " must be float32 [", x.size(1), "] and contiguous, got shape ", shape_text(value));
  DLP_CHECK(value.device() == x.device(), name, " must be on the device of x");
  return static_cast<float*>(value.data_ptr());
}

Tensor empty_of_channel(const Tensor& x) { return torch::stable::new_empty(x, {x.size(1)}, ScalarType::Float); }
float* floats(Tensor& of) { return static_cast<float*>(of.data_ptr()); }

int64_t checked_rows(const Tensor& x) {
  const int64_t rows = x.numel() / x.size(1);
  DLP_CHECK(rows > 1, "x must have at least two values a channel, got shape ", shape_text(x));
  return rows;
}

void on_threads(int64_t count, const std::function<void(int64_t)>& body) {
  parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

template <class Element>
batch_norm::Layer<Element> layer_of(const Tensor& x, const float* weight, const float* bias, double eps) {
  return {static_cast<const Element*>(x.data_ptr()), x.numel() / x.size(1), x.size(1), weight, bias, eps};
}

// body(float or uint16_t, as the type of a null pointer)
template <class Body>
void with_element(const Tensor& x, const Body& body) {
  if (x.scalar_type() == ScalarType::Float) {
    body(static_cast<float*>(nullptr));
  } else {
    body(static_cast<uint16_t*>(nullptr));
  }
}

std::tuple<Tensor, Tensor, Tensor> forward_on_cpu(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                                  const Tensor& running_mean, const Tensor& running_var,
                                                  double momentum, double eps) {
  check_input(x, false);
  const int64_t rows = checked_rows(x);
  const float *of_weight = of_channel(weight, x, "weight"), *of_bias = of_channel(bias, x, "bias");
  float *running = of_channel(running_mean, x, "running_mean"), *spread = of_channel(running_var, x, "running_var");
  Tensor y = torch::stable::empty_like(x), mean = empty_of_channel(x), variance = empty_of_channel(x);
  with_element(x, [&]<class Element>(Element*) {
    batch_norm::forward_cpu(layer_of<Element>(x, of_weight, of_bias, eps), on_threads,
                            static_cast<Element*>(y.data_ptr()), floats(mean), floats(variance));
  });
  batch_norm::enter_running_statistics(floats(mean), floats(variance), x.size(1), rows, momentum, running, spread);
  return {y, mean, variance};
}

Tensor eval_on_cpu(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& mean,
                   const Tensor& variance, double eps) {
  check_input(x, false);
  const float *of_weight = of_channel(weight, x, "weight"), *of_bias = of_channel(bias, x, "bias");
  const float *means = of_channel(mean, x, "mean"), *variances = of_channel(variance, x, "var");
  Tensor y = torch::stable::empty_like(x);
  with_element(x, [&]<class Element>(Element*) {
    batch_norm::eval_cpu(layer_of<Element>(x, of_weight, of_bias, eps), means, variances, on_threads,
                         static_cast<Element*>(y.data_ptr()));
  });
  return y;
}

std::tuple<Tensor, Tensor, Tensor> backward_on_cpu(const Tensor& gradient, const Tensor& x, const Tensor& weight,
                                                   const Tensor& bias, const Tensor& mean, const Tensor& variance,
                                                   double eps) {
  check_input(x, false);
  check_gradient(gradient, x, false);
  const float *of_weight = of_channel(weight, x, "weight"), *of_bias = of_channel(bias, x, "bias");
  const float *means = of_channel(mean, x, "mean"), *variances = of_channel(variance, x, "var");
  Tensor out = torch::stable::empty_like(x), for_weight = empty_of_channel(x), for_bias = empty_of_channel(x);
  with_element(x, [&]<class Element>(Element*) {
    batch_norm::backward_cpu(static_cast<const Element*>(gradient.data_ptr()),
                             layer_of<Element>(x, of_weight, of_bias, eps), means, variances, on_threads,
                             static_cast<Element*>(out.data_ptr()), floats(for_weight), floats(for_bias));
  });
  return {out, for_weight, for_bias};
}

#ifdef DLP_WITH_CUDA
void check_cuda(cudaError_t status) {
  DLP_CHECK(status == cudaSuccess, "batch_norm_relu: ", cudaGetErrorString(status));
}

cudaStream_t current_stream(const Tensor& x) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

void check_aligned(const Tensor& x, const char* name) {
  DLP_CHECK(reinterpret_cast<uintptr_t>(x.data_ptr()) % 16 == 0, name, " must begin at a multiple of 16 bytes");
}

batch_norm::cuda::Layer layer_on_cuda(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  check_input(x, true);
  check_aligned(x, "x");
  using Type = batch_norm::cuda::ElementType;
  const Type type = x.scalar_type() == ScalarType::Float      ? Type::kFloat32
                    : x.scalar_type() == ScalarType::BFloat16 ? Type::kBFloat16
                                                              : Type::kFloat16;
  return {type, x.data_ptr(), x.numel() / x.size(1), x.size(1), of_channel(weight, x, "weight"),
          of_channel(bias, x, "bias"), eps};
}

Tensor empty_sums(const Tensor& x, int64_t rows) {
  return torch::stable::new_empty(x, {batch_norm::cuda::sums_size(rows, x.size(1))}, ScalarType::Double);
}

std::tuple<Tensor, Tensor, Tensor> forward_on_cuda(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                                   const Tensor& running_mean, const Tensor& running_var,
                                                   double momentum, double eps) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const auto layer = layer_on_cuda(x, weight, bias, eps);
  const int64_t rows = checked_rows(x);
  const batch_norm::cuda::Running running{of_channel(running_mean, x, "running_mean"),
                                          of_channel(running_var, x, "running_var"), static_cast<float>(momentum)};
  Tensor y = torch::stable::empty_like(x), mean = empty_of_channel(x), variance = empty_of_channel(x);
  Tensor sums = empty_sums(x, rows);
  check_cuda(batch_norm::cuda::forward_cuda(layer, running, static_cast<double*>(sums.data_ptr()), y.data_ptr(),
                                            floats(mean), floats(variance), current_stream(x)));
  return {y, mean, variance};
}

Tensor eval_on_cuda(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& mean,
                    const Tensor& variance, double eps) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const auto layer = layer_on_cuda(x, weight, bias, eps);
  Tensor y = torch::stable::empty_like(x);
  check_cuda(batch_norm::cuda::eval_cuda(layer, of_channel(mean, x, "mean"), of_channel(variance, x, "var"),
                                         y.data_ptr(), current_stream(x)));
  return y;
}

std::tuple<Tensor, Tensor, Tensor> backward_on_cuda(const Tensor& gradient, const Tensor& x, const Tensor& weight,
                                                    const Tensor& bias, const Tensor& mean, const Tensor& variance,
                                                    double eps) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const auto layer = layer_on_cuda(x, weight, bias, eps);
  check_gradient(gradient, x, true);
  check_aligned(gradient, "the gradient");
  Tensor out = torch::stable::empty_like(x), for_weight = empty_of_channel(x), for_bias = empty_of_channel(x);
  Tensor sums = empty_sums(x, layer.rows);
  check_cuda(batch_norm::cuda::backward_cuda(gradient.data_ptr(), layer, of_channel(mean, x, "mean"),
                                             of_channel(variance, x, "var"), static_cast<double*>(sums.data_ptr()),
                                             out.data_ptr(), floats(for_weight), floats(for_bias),
                                             current_stream(x)));
  return {out, for_weight, for_bias};
}
#endif

}  // namespace
}  // namespace dlp

#ifndef DLP_WITH_CUDA  // the library of the CUDA kernels leaves the CPU to the other one
STABLE_TORCH_LIBRARY_IMPL(dlp_fast, CPU, m) {
  m.impl("batch_norm_relu", DLP_BOX(&dlp::forward_on_cpu));
  m.impl("batch_norm_relu_eval", DLP_BOX(&dlp::eval_on_cpu));
  m.impl("batch_norm_relu_backward", DLP_BOX(&dlp::backward_on_cpu));
}
#else
STABLE_TORCH_LIBRARY_IMPL(dlp_fast, CUDA, m) {
  m.impl("batch_norm_relu", DLP_BOX(&dlp::forward_on_cuda));
  m.impl("batch_norm_relu_eval", DLP_BOX(&dlp::eval_on_cuda));
  m.impl("batch_norm_relu_backward", DLP_BOX(&dlp::backward_on_cuda));
}
#endif

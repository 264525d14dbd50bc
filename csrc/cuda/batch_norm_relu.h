// CUDA kernels of `batch_norm_relu`, on raw pointers; what is summed in which order: batch_norm_math.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "batch_norm_math.h"

namespace dlp::batch_norm::cuda {

enum class ElementType : int32_t { kFloat32, kBFloat16, kFloat16 };

// A channels-last batch as a matrix, 16-byte aligned, and fp32 [channels] each.
struct Layer {
  ElementType element;
  const void* x;
  int64_t rows, channels;
  const float *weight, *bias;
  double eps;
};

// Numbers of float64 that forward_cuda and backward_cuda are given as `sums`; what is in them does not matter.
int64_t sums_size(int64_t rows, int64_t channels);

struct Running {
  float *mean, *variance;
  float share;
};

// y by the batch's own mean and variance, which are written too and enter the running ones. Two kernels.
cudaError_t forward_cuda(const Layer& layer, const Running& running, double* sums, void* y, float* mean,
                         float* variance, cudaStream_t stream);

// y by those that are given. One kernel.
cudaError_t eval_cuda(const Layer& layer, const float* mean, const float* variance, void* y, cudaStream_t stream);

// Gradients of x, weight and bias; `gradient`: that of y, of x's type and alignment. Two kernels.
cudaError_t backward_cuda(const void* gradient, const Layer& layer, const float* mean, const float* variance,
                          double* sums, void* out, float* of_weight, float* of_bias, cudaStream_t stream);

}  // namespace dlp::batch_norm::cuda

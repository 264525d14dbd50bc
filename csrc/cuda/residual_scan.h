// CUDA kernels of `high_pass_residual` and `window_hashes`, on raw pointers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "residual_pixel.h"

namespace dlp::residual_scan {

// Residuals of `batch` images (uint8 NHWC) less `mean` [height * width * 3], each of length 1, into `out`.
cudaError_t high_pass_residual_cuda(const uint8_t* images, const float* mean, int64_t batch, int height, int width,
                                    float* out, cudaStream_t stream);

// Hashes of `batch` images, (height - 2) * (width - 2) each; -1 where no channel spans `contrast` levels.
cudaError_t window_hashes_cuda(const uint8_t* images, int64_t batch, int height, int width, int contrast,
                               int64_t* out, cudaStream_t stream);

}  // namespace dlp::residual_scan

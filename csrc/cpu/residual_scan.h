// CPU kernels of `high_pass_residual` and `window_hashes`, on raw pointers; the caller brings the threads.
#pragma once

#include <cstdint>

#include "residual_pixel.h"

namespace dlp::residual_scan {

// Residuals of images begin..end-1 (uint8 NHWC) less `mean` [height * width * 3], each of length 1, into `out`.
void high_pass_residual_cpu(const uint8_t* images, const float* mean, int64_t begin, int64_t end, int height,
                            int width, float* out);

// Hashes of images begin..end-1, (height - 2) * (width - 2) each; -1 where no channel spans `contrast` levels.
void window_hashes_cpu(const uint8_t* images, int64_t begin, int64_t end, int height, int width, int contrast,
                       int64_t* out);

}  // namespace dlp::residual_scan

// CUDA kernel of `augment`, on raw pointers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "augment_pixel.h"

namespace dlp::augment {

// How many buffers of one image, of the `wanted` that a block works in, do not fit into the current device's
// shared memory: so many times batch * height * width * 3 bytes of scratch are needed.
cudaError_t scratch_canvases(const Settings& settings, int wanted, int* missing);

// Both views of `batch` images (uint8 NHWC) in one launch. `table` [3][256] holds the output value of every
// pixel value; Value is an unsigned integer of the output type's size, whose bits are copied. `strong` may be
// null: it is left out then. `scratch` holds `missing` canvases for each image.
template <typename Value>
cudaError_t augment_cuda(const uint8_t* images, const int64_t* ids, int64_t batch, const Settings& settings,
                         const Value* table, Value* weak, Value* strong, uint8_t* scratch, int missing,
                         cudaStream_t stream);

}  // namespace dlp::augment

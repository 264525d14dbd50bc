// CUDA kernel of `augment`, on raw pointers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "augment_pixel.h"

namespace dlp::augment {

// Global memory for the buffers of an image ("canvases") that do not fit into shared memory.
struct Scratch {
  int missing;     // canvases of a block, of those that it works in, that do not fit
  int64_t blocks;  // how many run; each takes several images where there is scratch
  int64_t bytes;   // in all
};
// For the current device; `wanted`: how many canvases a block works in, 2 with a strong view, else 1.
cudaError_t plan_scratch(const Settings& settings, int64_t batch, int wanted, Scratch* scratch);

// Both views of `batch` images (uint8 NHWC) in one launch. `table` [3][256] holds the output value of every
// pixel value; Value is an unsigned integer of the output type's size, whose bits are copied. `strong` may be
// null: it is left out then. `memory`: scratch.bytes, at an address divisible by 16.
template <typename Value>
cudaError_t augment_cuda(const uint8_t* images, const int64_t* ids, int64_t batch, const Settings& settings,
                         const Value* table, Value* weak, Value* strong, uint8_t* memory, const Scratch& scratch,
                         cudaStream_t stream);

}  // namespace dlp::augment

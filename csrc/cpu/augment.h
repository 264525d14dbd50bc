// CPU kernel of `augment`, on raw pointers.
#pragma once

#include <cstdint>

#include "augment_pixel.h"

namespace dlp::augment {

// Views of images begin..end-1 (uint8 NHWC). `table` [3][256] holds the output value of every pixel value;
// Value is an unsigned integer of the output type's size, whose bits are copied. `strong` may be null: it is
// left out then.
template <typename Value>
void augment_cpu(const uint8_t* images, const int64_t* ids, int64_t begin, int64_t end,
                 const Settings& settings, const Value* table, Value* weak, Value* strong);

}  // namespace dlp::augment

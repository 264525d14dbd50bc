// The launcher of the CUDA kernel; needs the CUDA runtime's header, hence apart from inject_trigger.h.
#pragma once

#include <cuda_runtime_api.h>

#include "inject_trigger.h"

namespace dlp {

cudaError_t inject_trigger_cuda(const InjectArgs& args, cudaStream_t stream);

}  // namespace dlp

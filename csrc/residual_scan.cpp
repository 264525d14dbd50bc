// `high_pass_residual` and `window_hashes`: checks, allocation and dispatch; the kernels are in cpu/residual_scan.cpp
// and cuda/residual_scan.cu.
#include <algorithm>

#include "check.h"
#include "cpu/residual_scan.h"

#ifdef DLP_WITH_CUDA
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "cuda/residual_scan.h"
#endif

namespace dlp {
namespace {

using residual_scan::kLargestSide;
using residual_scan::kWindow;

void check_images(const Tensor& images, int64_t least) {
  DLP_CHECK_DIM(images, 4);
  DLP_CHECK_DTYPE(images, ScalarType::Byte, "uint8");
  DLP_CHECK_CONTIGUOUS(images);
  DLP_CHECK(images.size(3) == residual_scan::kChannels, "images must have the shape [b, H, W, 3], got ",
            shape_text(images));
  for (int64_t d = 1; d < 3; ++d) {
    DLP_CHECK(images.size(d) >= least && images.size(d) <= kLargestSide, "images must be ", least, " to ",
              kLargestSide, " pixels high and wide, got ", shape_text(images));
  }
}

Tensor empty_residuals(const Tensor& images, const Tensor& mean) {
  check_images(images, 1);
  DLP_CHECK_DIM(mean, 3);
  DLP_CHECK_DTYPE(mean, ScalarType::Float, "float32");
  DLP_CHECK_CONTIGUOUS(mean);
  for (int64_t d = 0; d < 3; ++d) {
    DLP_CHECK(mean.size(d) == images.size(d + 1), "mean must have the shape of one image, got ", shape_text(mean),
              " for images ", shape_text(images));
  }
  DLP_CHECK(mean.device() == images.device(), "mean must be on the device of images");
  return torch::stable::new_empty(images, {images.size(0), images.size(1) * images.size(2) * images.size(3)},
                                  ScalarType::Float);
}

Tensor empty_hashes(const Tensor& images, int64_t contrast) {
  check_images(images, kWindow);
  DLP_CHECK(contrast >= 1 && contrast <= 255, "contrast must be from 1 to 255, got ", contrast);
  const int64_t windows = (images.size(1) - kWindow + 1) * (images.size(2) - kWindow + 1);
  return torch::stable::new_empty(images, {images.size(0), windows}, ScalarType::Long);
}

// less than some 50 us of work, about 2^14 pixels, does not pay for waking a thread
int64_t grain(const Tensor& images) {
  return std::max<int64_t>(1, (1 << 14) / (images.size(1) * images.size(2)));
}

Tensor residual_on_cpu(const Tensor& images, const Tensor& mean) {
  Tensor out = empty_residuals(images, mean);
  const auto* pixels = static_cast<const uint8_t*>(images.data_ptr());
  const auto* means = static_cast<const float*>(mean.data_ptr());
  auto* values = static_cast<float*>(out.data_ptr());
  const int height = static_cast<int>(images.size(1)), width = static_cast<int>(images.size(2));
  parallel_for(0, images.size(0), grain(images), [&](int64_t begin, int64_t end) {
    residual_scan::high_pass_residual_cpu(pixels, means, begin, end, height, width, values);
  });
  return out;
}

Tensor hashes_on_cpu(const Tensor& images, int64_t contrast) {
  Tensor out = empty_hashes(images, contrast);
  const auto* pixels = static_cast<const uint8_t*>(images.data_ptr());
  auto* values = static_cast<int64_t*>(out.data_ptr());
  const int height = static_cast<int>(images.size(1)), width = static_cast<int>(images.size(2));
  parallel_for(0, images.size(0), grain(images), [&](int64_t begin, int64_t end) {
    residual_scan::window_hashes_cpu(pixels, begin, end, height, width, static_cast<int>(contrast), values);
  });
  return out;
}

#ifdef DLP_WITH_CUDA
void check_cuda(cudaError_t status) {
  DLP_CHECK(status == cudaSuccess, "residual_scan: ", cudaGetErrorString(status));
}

cudaStream_t current_stream(const Tensor& images) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(images.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

Tensor residual_on_cuda(const Tensor& images, const Tensor& mean) {
  const torch::stable::accelerator::DeviceGuard guard(images.get_device_index());
  Tensor out = empty_residuals(images, mean);
  check_cuda(residual_scan::high_pass_residual_cuda(
      static_cast<const uint8_t*>(images.data_ptr()), static_cast<const float*>(mean.data_ptr()), images.size(0),
      static_cast<int>(images.size(1)), static_cast<int>(images.size(2)), static_cast<float*>(out.data_ptr()),
      current_stream(images)));
  return out;
}

Tensor hashes_on_cuda(const Tensor& images, int64_t contrast) {
  const torch::stable::accelerator::DeviceGuard guard(images.get_device_index());
  Tensor out = empty_hashes(images, contrast);
  check_cuda(residual_scan::window_hashes_cuda(
      static_cast<const uint8_t*>(images.data_ptr()), images.size(0), static_cast<int>(images.size(1)),
      static_cast<int>(images.size(2)), static_cast<int>(contrast), static_cast<int64_t*>(out.data_ptr()),
      current_stream(images)));
  return out;
}
#endif

}  // namespace
}  // namespace dlp

#ifndef DLP_WITH_CUDA  // the library of the CUDA kernels leaves the CPU to the other one
STABLE_TORCH_LIBRARY_IMPL(dlp_fast, CPU, m) {
  m.impl("high_pass_residual", DLP_BOX(&dlp::residual_on_cpu));
  m.impl("window_hashes", DLP_BOX(&dlp::hashes_on_cpu));
}
#else
STABLE_TORCH_LIBRARY_IMPL(dlp_fast, CUDA, m) {
  m.impl("high_pass_residual", DLP_BOX(&dlp::residual_on_cuda));
  m.impl("window_hashes", DLP_BOX(&dlp::hashes_on_cuda));
}
#endif

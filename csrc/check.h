// Argument checks of the stable-ABI face: every message names the argument, what was expected and what came.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>
#include <string>

namespace dlp {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string shape_text(const Tensor& t) {
  std::string text = "[";
  for (int64_t d = 0; d < t.dim(); ++d) text += (d ? ", " : "") + std::to_string(t.size(d));
  return text + "]";
}

}  // namespace dlp

#define DLP_CHECK(cond, ...) STD_TORCH_CHECK(cond, "dlp_fast: ", __VA_ARGS__)
#define DLP_CHECK_DIM(x, n)                                                                              \
  DLP_CHECK((x).dim() == (n), #x " must have ", n, " dimensions, got ", (x).dim(), " in shape ", \
            dlp::shape_text(x))
#define DLP_CHECK_DTYPE(x, type, name)                                                               \
  DLP_CHECK((x).scalar_type() == (type), #x " must be " name ", got scalar type ",                 \
            static_cast<int>((x).scalar_type()))
#define DLP_CHECK_CONTIGUOUS(x) DLP_CHECK((x).is_contiguous(), #x " must be contiguous; call .contiguous() first")

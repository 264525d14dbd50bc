#include "cpu/batch_norm_relu.h"

#include <cstdlib>
#include <string_view>

#include "cpu/batch_norm_relu_kernels.h"

namespace dlp::batch_norm {
namespace {

template <class Element>
Rows<Element> widest() {
#if defined(__x86_64__)
  const char* wish = std::getenv("DLP_FAST_SIMD");
  const std::string_view level = wish == nullptr ? "" : wish;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (level == "baseline" || !__builtin_cpu_supports("avx2")) return kRows<Element>;
  if (level == "avx2" || !avx512) return rows_avx2<Element>();
  return rows_avx512<Element>();
#else
  return kRows<Element>;
#endif
}

}  // namespace

template <class Element>
const Rows<Element>& rows_kernels() {
  static const Rows<Element> chosen = widest<Element>();
  return chosen;
}
template const Rows<float>& rows_kernels<float>();
template const Rows<uint16_t>& rows_kernels<uint16_t>();

}  // namespace dlp::batch_norm

#include "cpu/batch_norm_relu_kernels.h"

namespace dlp::batch_norm {

template <class Element>
Rows<Element> rows_avx2() {
  return kRows<Element>;
}
template Rows<float> rows_avx2<float>();
template Rows<uint16_t> rows_avx2<uint16_t>();

}  // namespace dlp::batch_norm

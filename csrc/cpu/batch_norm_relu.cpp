#include "cpu/batch_norm_relu.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <vector>

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

// `count` sums of each channel; what has number i enters row(i).
struct Tree {
  int64_t channels, count;
  std::vector<Pair> of;
  Tree(int64_t channels, int64_t count) : channels(channels), count(count), of(channels * count, Pair{0.0, 0.0}) {}
  Pair* row(int64_t i) { return of.data() + i % count * channels; }
  // of each channel, in the order of a tree
  const Pair* total() {
    for (int64_t half = count / 2; half > 0; half /= 2) {
      for (int64_t i = 0; i < half * channels; ++i) add(of[half * channels + i], of[i]);
    }
    return of.data();
  }
};

// The pairs of all blocks, added in the order of the definition; pair(block, c) is a block's.
template <class PairOf>
std::vector<Pair> joined(const Cut& cut, const PairOf& pair) {
  Tree lanes(cut.channels, kLanes);
  for (int64_t part = 0; part < cut.parts; ++part) {
    const int64_t first = part * cut.of_part, blocks = std::min(cut.of_part, cut.blocks - first);
    Tree slots(cut.channels, blocks == 1 ? 1 : kSlots);  // zeros add nothing
    for (int64_t i = 0; i < blocks; ++i) {
      Pair* to = slots.row(i);
      for (int64_t c = 0; c < cut.channels; ++c) add(pair(first + i, c), to[c]);
    }
    const Pair* total = slots.total();
    Pair* to = lanes.row(part);
    for (int64_t c = 0; c < cut.channels; ++c) add(total[c], to[c]);
  }
  const Pair* total = lanes.total();
  return {total, total + cut.channels};
}

int64_t rows_of(const Cut& cut, int64_t block) { return std::min(cut.of_block, cut.rows - block * cut.of_block); }

// body(block, number of its first value, its rows)
template <class Body>
void each_block(const Cut& cut, const Parallel& parallel, const Body& body) {
  parallel(cut.blocks, [&](int64_t block) { body(block, block * cut.of_block * cut.channels, rows_of(cut, block)); });
}

// scale and shift of all channels
struct Applied {
  std::vector<float> scale, shift;
  Affines by;
  template <class Element>
  Applied(const Layer<Element>& of, const float* mean, const float* variance)
      : scale(of.channels), shift(of.channels), by{scale.data(), shift.data(), mean} {
    for (int64_t c = 0; c < of.channels; ++c) {
      const Affine affine = affine_of({mean[c], variance[c]}, of.weight[c], of.bias[c], of.eps);
      scale[c] = affine.scale;
      shift[c] = affine.shift;
    }
  }
};

}  // namespace

template <class Element>
const Rows<Element>& rows_kernels() {
  static const Rows<Element> chosen = widest<Element>();
  return chosen;
}

template <class Element>
void eval_cpu(const Layer<Element>& layer, const float* mean, const float* variance, const Parallel& parallel,
              Element* y) {
  const Applied applied(layer, mean, variance);
  each_block(cut_of(layer.rows, layer.channels), parallel, [&](int64_t, int64_t first, int64_t rows) {
    rows_kernels<Element>().forward(layer.x + first, rows, layer.channels, applied.by, y + first);
  });
}

template <class Element>
void forward_cpu(const Layer<Element>& layer, const Parallel& parallel, Element* y, float* mean, float* variance) {
  const Cut cut = cut_of(layer.rows, layer.channels);
  const int64_t n = cut.channels;
  std::vector<float> sums(cut.blocks * n), squares(cut.blocks * n);
  each_block(cut, parallel, [&](int64_t block, int64_t first, int64_t rows) {
    rows_kernels<Element>().moments(layer.x + first, rows, n, sums.data() + block * n, squares.data() + block * n);
  });
  const std::vector<Pair> total = joined(cut, [&](int64_t block, int64_t c) {
    return pair_of_moments(sums[block * n + c], squares[block * n + c], static_cast<double>(rows_of(cut, block)));
  });
  for (int64_t c = 0; c < n; ++c) {
    const Moments of = moments_of(total[c], static_cast<double>(cut.rows));
    mean[c] = of.mean;
    variance[c] = of.variance;
  }
  eval_cpu(layer, mean, variance, parallel, y);
}

template <class Element>
void backward_cpu(const Element* gradient, const Layer<Element>& layer, const float* mean, const float* variance,
                  const Parallel& parallel, Element* out, float* of_weight, float* of_bias) {
  const Cut cut = cut_of(layer.rows, layer.channels);
  const int64_t n = cut.channels;
  const Applied applied(layer, mean, variance);
  std::vector<float> sums(cut.blocks * n), products(cut.blocks * n), of_input(n), constant(n);
  each_block(cut, parallel, [&](int64_t block, int64_t first, int64_t rows) {
    rows_kernels<Element>().gradient_sums(gradient + first, layer.x + first, rows, n, applied.by,
                                          sums.data() + block * n, products.data() + block * n);
  });
  const std::vector<Pair> total =
      joined(cut, [&](int64_t block, int64_t c) { return Pair{sums[block * n + c], products[block * n + c]}; });
  for (int64_t c = 0; c < n; ++c) {
    const Slope of = slope_of(total[c], variance[c], applied.scale[c], static_cast<double>(cut.rows), layer.eps);
    of_weight[c] = of.of_weight;
    of_bias[c] = of.of_bias;
    of_input[c] = of.of_input;
    constant[c] = of.constant;
  }
  each_block(cut, parallel, [&](int64_t, int64_t first, int64_t rows) {
    rows_kernels<Element>().backward(gradient + first, layer.x + first, rows, n, applied.by,
                                     {of_input.data(), constant.data()}, out + first);
  });
}

void enter_running_statistics(const float* mean, const float* variance, int64_t channels, int64_t rows, double share,
                              float* running_mean, float* running_variance) {
  const auto by = static_cast<float>(share);
  for (int64_t c = 0; c < channels; ++c) {
    running_mean[c] = moved(running_mean[c], mean[c], by);
    running_variance[c] = moved(running_variance[c], unbiased(variance[c], static_cast<double>(rows)), by);
  }
}

#define DLP_FOR(Element)                                                                                              \
  template const Rows<Element>& rows_kernels<Element>();                                                              \
  template void forward_cpu(const Layer<Element>&, const Parallel&, Element*, float*, float*);                        \
  template void eval_cpu(const Layer<Element>&, const float*, const float*, const Parallel&, Element*);               \
  template void backward_cpu(const Element*, const Layer<Element>&, const float*, const float*, const Parallel&,      \
                             Element*, float*, float*);
DLP_FOR(float)
DLP_FOR(uint16_t)
#undef DLP_FOR

}  // namespace dlp::batch_norm

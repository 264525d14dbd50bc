// The launchers of csrc/cuda for ctypes, on memory of the CPU.
#include "cuda_runtime_api.h"
// after it, so that a name of the standard library is not taken for a word of CUDA's
#include "cuda/augment.h"
#include "cuda/batch_norm_relu.h"
#include "cuda/entropy_rank.h"
#include "cuda/inject_trigger_launch.h"
#include "cuda/residual_scan.h"

using namespace dlp;

extern "C" {

void set_device(int processors, int shared_bytes) {
  emulated::processors = processors;
  emulated::shared_bytes = shared_bytes;
}
int launches_since() {
  const int count = emulated::launches;
  emulated::launches = 0;
  return count;
}

void row_entropy(const void* data, int element, int64_t rows, int64_t classes, int64_t stride, float* entropy,
                 int32_t* top) {
  cuda::row_entropy({data, static_cast<cpu::Element>(element), rows, classes, stride}, {}, entropy, top, nullptr,
                    nullptr, nullptr);
}

// 1: done by choose_few; 0: too many for it.
int choose_few(const float* scores, int64_t rows, int64_t lowest, int64_t per_class, const void* labels,
               int label_type, int64_t classes, int64_t* low, int64_t* high, int64_t high_size, int64_t* counts,
               int64_t* faults) {
  if (!cuda::fits_few(rows, classes, lowest, per_class)) return 0;
  std::vector<int64_t> staging(static_cast<size_t>(classes * std::min(per_class, rows)), -77);
  uint32_t finished = 0;
  cuda::choose_few({{scores, rows, {labels, static_cast<cpu::LabelType>(label_type)}, classes, true}, lowest,
                    per_class, cuda::make_plan(rows, 1).id_bits, low, high, high_size, counts, faults,
                    staging.data(), &finished}, nullptr);
  return 1;
}

int inject(const uint8_t* images, void* out, int out_type, const int64_t* which, int64_t count, int64_t height,
           int64_t width, const int64_t* records, int64_t record_count, const uint8_t* overlay, int64_t overlay_size,
           const int16_t* terms, int64_t terms_size, const float* scale, const float* shift, int64_t* faults) {
  const int64_t size = height * width * kChannels;
  InjectArgs args{images, size, out, size, static_cast<PixelOut>(out_type), which, count, height, width,
                  reinterpret_cast<const TriggerRecord*>(records), record_count, overlay, overlay_size, terms,
                  terms_size, {}, faults};
  for (int c = 0; c < kChannels; ++c) args.affine.scale[c] = scale[c], args.affine.shift[c] = shift[c];
  return inject_trigger_cuda(args, nullptr);
}

// Winners of select_rows in the order of arrival: composite numbers, then the largest int64.
void select_rows(const float* scores, int64_t rows, const void* labels, int label_type, int64_t groups, int largest,
                 int64_t count, int64_t* composite, int32_t* group, int64_t size, int64_t* counts, int64_t* faults,
                 int64_t* id_bits) {
  cuda::Plan plan = cuda::make_plan(rows, groups);
  std::vector<uint32_t> hist(static_cast<size_t>(groups * plan.bins), 0), progress(3, 0);
  std::vector<uint64_t> prefix(static_cast<size_t>(groups), 77);
  std::vector<int64_t> wanted(static_cast<size_t>(groups), 77);
  *id_bits = plan.id_bits;
  cuda::select_rows({scores, rows, {labels, static_cast<cpu::LabelType>(label_type)}, groups, largest != 0}, count, plan,
                    {hist.data(), prefix.data(), wanted.data(), counts, progress.data(), composite, group, size, faults},
                    false, nullptr);
}

int augment_views(const uint8_t* images, const int64_t* ids, int64_t batch, const int64_t* numbers,
                  const void* table, int value_bytes, void* weak, void* strong) {
  const auto n = [&](int i) { return static_cast<int>(numbers[i]); };
  const augment::Settings settings{static_cast<uint64_t>(numbers[0]), static_cast<uint32_t>(numbers[1]), n(2), n(3),
                                   numbers[4] != 0, n(5), n(6), n(7), n(8)};
  augment::Scratch scratch{};
  augment::plan_scratch(settings, batch, strong == nullptr ? 1 : 2, &scratch);
  std::vector<uint4> memory(static_cast<size_t>(scratch.bytes / 16 + 1));
  auto* bytes = reinterpret_cast<uint8_t*>(memory.data());
  if (value_bytes == 4) {
    augment::augment_cuda(images, ids, batch, settings, static_cast<const uint32_t*>(table),
                          static_cast<uint32_t*>(weak), static_cast<uint32_t*>(strong), bytes, scratch, nullptr);
  } else {
    augment::augment_cuda(images, ids, batch, settings, static_cast<const uint16_t*>(table),
                          static_cast<uint16_t*>(weak), static_cast<uint16_t*>(strong), bytes, scratch, nullptr);
  }
  return scratch.missing;
}

void high_pass(const uint8_t* images, const float* mean, int64_t batch, int height, int width, float* out) {
  residual_scan::high_pass_residual_cuda(images, mean, batch, height, width, out, nullptr);
}
void hashes(const uint8_t* images, int64_t batch, int height, int width, int contrast, int64_t* out) {
  residual_scan::window_hashes_cuda(images, batch, height, width, contrast, out, nullptr);
}

// Which pass: 0 forward, 1 by the statistics that are given, 2 backward; returns the status.
int batch_norm(int pass, int element, const void* x, int64_t rows, int64_t channels, const float* weight,
               const float* bias, double eps, float* running_mean, float* running_variance, double share,
               const void* gradient, float* mean, float* variance, void* out, float* of_weight, float* of_bias) {
  namespace to = batch_norm::cuda;
  const to::Layer layer{static_cast<to::ElementType>(element), x, rows, channels, weight, bias, eps};
  std::vector<batch_norm::Pair> sums(static_cast<size_t>(to::sums_size(rows, channels) / 2), {-7.0, 7.0});
  auto* numbers = reinterpret_cast<double*>(sums.data());
  if (pass == 0) {
    return to::forward_cuda(layer, {running_mean, running_variance, static_cast<float>(share)}, numbers, out, mean,
                            variance, nullptr);
  }
  if (pass == 1) return to::eval_cuda(layer, mean, variance, out, nullptr);
  return to::backward_cuda(gradient, layer, mean, variance, numbers, out, of_weight, of_bias, nullptr);
}
}

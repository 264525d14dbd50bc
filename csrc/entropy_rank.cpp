// entropy_rank, row_entropy, select: checks, allocation, dispatch and registration.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>
#include <vector>

#include "check.h"
#include "cpu/entropy_rank.h"
#ifdef DLP_WITH_CUDA
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "cuda/entropy_rank.h"
#endif

namespace dlp {

namespace {

// Rows of fewer elements are not worth a thread.
constexpr int64_t kGrainElements = 16384;
// Classes are counted in fp32 along a row, exact up to here.
constexpr int64_t kMaxClasses = int64_t{1} << 24;
// Places within a group are kept in 32 bits.
constexpr int64_t kMaxRows = (int64_t{1} << 32) - 1;

Tensor empty_on(const Tensor& like, int64_t size, ScalarType type) {
  const std::vector<int64_t> sizes{size};
  return torch::stable::new_empty(like, sizes, type);
}

void check_logits(const Tensor& logits) {
  DLP_CHECK_DIM(logits, 2);
  const ScalarType type = logits.scalar_type();
  DLP_CHECK(type == ScalarType::Float || type == ScalarType::Half || type == ScalarType::BFloat16,
            "logits must be float32, float16 or bfloat16, got scalar type ", static_cast<int>(type));
  DLP_CHECK(logits.size(1) >= 2 && logits.size(1) <= kMaxClasses, "logits must have 2 to ", kMaxClasses,
            " classes (columns), got ", logits.size(1));
  DLP_CHECK(logits.size(0) <= kMaxRows, "logits must have at most ", kMaxRows, " rows, got ", logits.size(0));
}

void check_counts(int64_t rows, int64_t lowest, int64_t highest_per_class) {
  DLP_CHECK(lowest >= 0 && lowest <= rows, "lowest must be from 0 to the number of rows, ", rows, ", got ", lowest);
  DLP_CHECK(highest_per_class >= 0, "highest_per_class must not be negative, got ", highest_per_class);
}

void check_labels(const Tensor& labels, int64_t rows) {
  DLP_CHECK_DIM(labels, 1);
  DLP_CHECK(labels.scalar_type() == ScalarType::Long || labels.scalar_type() == ScalarType::Int,
            "labels must be int64 or int32, got scalar type ", static_cast<int>(labels.scalar_type()));
  DLP_CHECK(labels.size(0) == rows, "labels must have one entry for each of the ", rows, " rows, got ", labels.size(0));
}

Tensor contiguous_rows(const Tensor& logits) {
  return logits.size(0) == 0 || logits.stride(1) == 1 ? logits : torch::stable::contiguous(logits);
}

cpu::Logits describe(const Tensor& logits) {
  const ScalarType type = logits.scalar_type();
  const cpu::Element element = type == ScalarType::Float  ? cpu::Element::kFloat
                               : type == ScalarType::Half ? cpu::Element::kHalf
                                                          : cpu::Element::kBfloat16;
  return {logits.const_data_ptr(), element, logits.size(0), logits.size(1), logits.stride(0)};
}

cpu::Labels describe_labels(const Tensor& labels) {
  return {labels.const_data_ptr(),
          labels.scalar_type() == ScalarType::Int ? cpu::LabelType::kInt32 : cpu::LabelType::kInt64};
}

void on_threads(int64_t count, const std::function<void(int64_t)>& body) {
  parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

// highest holds min(rows, classes * m) ids: those chosen, then -1.
int64_t highest_size(int64_t rows, int64_t classes, int64_t per_class) {
  if (per_class == 0 || classes == 0) return 0;
  return per_class > rows / classes ? rows : per_class * classes;
}

std::tuple<Tensor, Tensor> row_entropy_cpu(const Tensor& given) {
  check_logits(given);
  const Tensor logits = contiguous_rows(given);
  Tensor entropy = empty_on(logits, logits.size(0), ScalarType::Float);
  Tensor top = empty_on(logits, logits.size(0), ScalarType::Int);
  const cpu::Logits what = describe(logits);
  float* entropy_out = static_cast<float*>(entropy.mutable_data_ptr());
  int32_t* top_out = static_cast<int32_t*>(top.mutable_data_ptr());
  const int64_t grain = std::max<int64_t>(1, kGrainElements / what.classes);
  parallel_for(0, what.rows, grain, [&](int64_t begin, int64_t end) {
    cpu::rank_kernels().row_entropy(what, begin, end, entropy_out, top_out);
  });
  return {entropy, top};
}

void check_select(const Tensor& given, int64_t lowest, int64_t highest_per_class,
                  const std::optional<Tensor>& given_labels, int64_t num_classes) {
  DLP_CHECK_DIM(given, 1);
  DLP_CHECK_DTYPE(given, ScalarType::Float, "float32");
  const int64_t rows = given.size(0);
  DLP_CHECK(rows <= kMaxRows, "scores must have at most ", kMaxRows, " entries, got ", rows);
  check_counts(rows, lowest, highest_per_class);
  DLP_CHECK(num_classes >= 0 && num_classes <= kMaxClasses, "num_classes must be from 0 to ", kMaxClasses, ", got ",
            num_classes);
  DLP_CHECK(highest_per_class == 0 || given_labels.has_value(), "highest_per_class needs labels");
  if (given_labels.has_value()) check_labels(*given_labels, rows);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> select_cpu(const Tensor& given, int64_t lowest, int64_t highest_per_class,
                                                      const std::optional<Tensor>& given_labels, int64_t num_classes) {
  check_select(given, lowest, highest_per_class, given_labels, num_classes);
  const int64_t rows = given.size(0);
  const Tensor scores = torch::stable::contiguous(given);
  const float* data = static_cast<const float*>(scores.const_data_ptr());

  const int64_t threads = torch::stable::get_num_threads();
  Tensor low = empty_on(scores, lowest, ScalarType::Long);
  Tensor high = empty_on(scores, highest_size(rows, num_classes, highest_per_class), ScalarType::Long);
  Tensor counts = empty_on(scores, num_classes, ScalarType::Long);
  Tensor faults = empty_on(scores, 2, ScalarType::Long);
  int64_t one_count = 0;
  cpu::Faults found = cpu::select({data, rows, {}, 1, false}, lowest, threads, on_threads,
                                  static_cast<int64_t*>(low.mutable_data_ptr()), &one_count);
  int64_t* high_out = static_cast<int64_t*>(high.mutable_data_ptr());
  int64_t* counts_out = static_cast<int64_t*>(counts.mutable_data_ptr());
  std::fill(high_out, high_out + high.numel(), int64_t{-1});
  std::fill(counts_out, counts_out + num_classes, int64_t{0});
  if (given_labels.has_value() && num_classes > 0) {
    const Tensor labels = torch::stable::contiguous(*given_labels);
    found.label = cpu::select({data, rows, describe_labels(labels), num_classes, true}, highest_per_class, threads,
                              on_threads, high_out, counts_out)
                      .label;
  }
  int64_t* faults_out = static_cast<int64_t*>(faults.mutable_data_ptr());
  faults_out[0] = found.score;
  faults_out[1] = found.label;
  return {low, high, counts, faults};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> entropy_rank_cpu(const Tensor& logits, int64_t lowest,
                                                                    int64_t highest_per_class,
                                                                    const std::optional<Tensor>& labels) {
  check_logits(logits);
  check_counts(logits.size(0), lowest, highest_per_class);
  if (labels.has_value()) check_labels(*labels, logits.size(0));
  auto [entropy, top] = row_entropy_cpu(logits);
  auto [low, high, counts, faults] =
      select_cpu(entropy, lowest, highest_per_class, labels.has_value() ? labels : std::optional<Tensor>(top),
                 logits.size(1));
  return {entropy, low, high, counts, faults};
}

#ifdef DLP_WITH_CUDA

// One row has 31 bits of its id in the composite number of the GPU selection.
constexpr int64_t kMaxCudaRows = (int64_t{1} << 31) - 1;

void check_cuda(cudaError_t error) { DLP_CHECK(error == cudaSuccess, "CUDA: ", cudaGetErrorString(error)); }

cudaStream_t current_stream(const Tensor& t) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

void check_same_device(const Tensor& t, const Tensor& like) {
  DLP_CHECK(t.is_cuda() && t.get_device_index() == like.get_device_index(), "labels must be on the device of the rows");
}

Tensor zeros_on(const Tensor& like, int64_t size, ScalarType type) {
  Tensor t = empty_on(like, size, type);
  return torch::stable::zero_(t);
}

template <class T>
T* pointer(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

std::tuple<Tensor, Tensor> sorted(const Tensor& t) {
  std::array<StableIValue, 4> stack{
      torch::stable::detail::from(t), torch::stable::detail::from(std::optional<bool>(true)),
      torch::stable::detail::from(int64_t{0}), torch::stable::detail::from(false)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1])};
}

struct Chosen {
  Tensor ids, counts, faults;
};

// Without a host sync: what is launched depends on sizes alone. `counted`: the first digit's counts, if taken
// already.
Chosen choose_cuda(const Tensor& like, const cpu::Scores& scores, int64_t count, int64_t size,
                   const std::optional<Tensor>& counted, cudaStream_t stream) {
  cuda::Plan plan = cuda::make_plan(scores.rows, scores.groups);
  if (count == 0) plan.passes = 0;
  Tensor hist = counted.has_value()    ? *counted
                : plan.passes == 0 ? empty_on(like, 0, ScalarType::Int)
                                       : zeros_on(like, scores.groups * plan.bins, ScalarType::Int);
  const Tensor prefix = empty_on(like, scores.groups, ScalarType::Long);
  const Tensor wanted = empty_on(like, scores.groups, ScalarType::Long);
  const Tensor progress = zeros_on(like, 3, ScalarType::Int);
  const Tensor composite = empty_on(like, size, ScalarType::Long), group = empty_on(like, size, ScalarType::Int);
  Chosen out{empty_on(like, size, ScalarType::Long), zeros_on(like, scores.groups, ScalarType::Long),
             empty_on(like, 2, ScalarType::Long)};
  const cuda::State state{pointer<uint32_t>(hist),     pointer<uint64_t>(prefix),  pointer<int64_t>(wanted),
                          pointer<int64_t>(out.counts), pointer<uint32_t>(progress), pointer<int64_t>(composite),
                          pointer<int32_t>(group),     size,                       pointer<int64_t>(out.faults)};
  check_cuda(cuda::select_rows(scores, count, plan, state, counted.has_value(), stream));
  if (size == 0) return out;
  const auto [by_score, order] = sorted(composite);
  if (scores.groups == 1) {
    check_cuda(cuda::write_ids(pointer<int64_t>(by_score), nullptr, size, plan.id_bits, pointer<int64_t>(out.ids),
                               stream));
    return out;
  }
  const Tensor group_by_score = empty_on(like, size, ScalarType::Int);
  check_cuda(cuda::gather_groups(pointer<int32_t>(group), pointer<int64_t>(order), size,
                                 pointer<int32_t>(group_by_score), stream));
  const Tensor by_group = std::get<1>(sorted(group_by_score));
  check_cuda(cuda::write_ids(pointer<int64_t>(by_score), pointer<int64_t>(by_group), size, plan.id_bits,
                             pointer<int64_t>(out.ids), stream));
  return out;
}

bool fits_few(const Tensor& rows, int64_t lowest, int64_t highest_per_class, bool labelled, int64_t num_classes) {
  return cuda::fits_few(rows.size(0), num_classes, lowest, labelled ? highest_per_class : 0);
}

// Both choices in one launch, behind one that sets a counter where there are classes to choose from.
std::tuple<Tensor, Tensor, Tensor, Tensor> choose_few_cuda(const Tensor& scores, int64_t lowest, int64_t per_class,
                                                           const std::optional<Tensor>& labels, int64_t num_classes,
                                                           cudaStream_t stream) {
  const int64_t rows = scores.size(0);
  Tensor low = empty_on(scores, lowest, ScalarType::Long);
  Tensor high = empty_on(scores, highest_size(rows, num_classes, per_class), ScalarType::Long);
  Tensor counts = empty_on(scores, num_classes, ScalarType::Long), faults = empty_on(scores, 2, ScalarType::Long);
  const bool both = per_class > 0 && num_classes > 0;
  const Tensor staging = empty_on(scores, both ? num_classes * std::min(per_class, rows) : 0, ScalarType::Long);
  const Tensor finished = both ? zeros_on(scores, 1, ScalarType::Int) : empty_on(scores, 0, ScalarType::Int);
  const cpu::Scores what{pointer<float>(scores), rows, labels.has_value() ? describe_labels(*labels) : cpu::Labels{},
                         num_classes, true};
  check_cuda(cuda::choose_few({what, lowest, both ? per_class : 0, cuda::make_plan(rows, 1).id_bits,
                               pointer<int64_t>(low), pointer<int64_t>(high), high.numel(), pointer<int64_t>(counts),
                               pointer<int64_t>(faults), pointer<int64_t>(staging), pointer<uint32_t>(finished)},
                              stream));
  return {low, high, counts, faults};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> choose_both_cuda(const Tensor& scores, int64_t lowest,
                                                            int64_t highest_per_class,
                                                            const std::optional<Tensor>& labels, int64_t num_classes,
                                                            const std::optional<Tensor>& low_counted,
                                                            const std::optional<Tensor>& high_counted,
                                                            cudaStream_t stream) {
  const float* data = pointer<float>(scores);
  const int64_t rows = scores.size(0);
  if (fits_few(scores, lowest, highest_per_class, labels.has_value(), num_classes))
    return choose_few_cuda(scores, lowest, labels.has_value() ? highest_per_class : 0, labels, num_classes, stream);
  Chosen low = choose_cuda(scores, {data, rows, {}, 1, false}, lowest, lowest, low_counted, stream);
  if (!labels.has_value() || num_classes == 0)
    return {low.ids, empty_on(scores, 0, ScalarType::Long), zeros_on(scores, num_classes, ScalarType::Long), low.faults};
  Chosen high = choose_cuda(scores, {data, rows, describe_labels(*labels), num_classes, true}, highest_per_class,
                            highest_size(rows, num_classes, highest_per_class), high_counted, stream);
  return {low.ids, high.ids, high.counts, high.faults};  // the second walk found faults of both kinds
}

std::tuple<Tensor, Tensor> row_entropy_cuda(const Tensor& given) {
  check_logits(given);
  const torch::stable::accelerator::DeviceGuard guard(given.get_device_index());
  const Tensor logits = contiguous_rows(given);
  Tensor entropy = empty_on(logits, logits.size(0), ScalarType::Float);
  Tensor top = empty_on(logits, logits.size(0), ScalarType::Int);
  check_cuda(cuda::row_entropy(describe(logits), {}, pointer<float>(entropy), pointer<int32_t>(top), nullptr, nullptr,
                               current_stream(logits)));
  return {entropy, top};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> select_cuda(const Tensor& given, int64_t lowest, int64_t highest_per_class,
                                                       const std::optional<Tensor>& given_labels, int64_t num_classes) {
  check_select(given, lowest, highest_per_class, given_labels, num_classes);
  DLP_CHECK(given.size(0) <= kMaxCudaRows, "scores must have at most ", kMaxCudaRows, " entries on CUDA");
  const torch::stable::accelerator::DeviceGuard guard(given.get_device_index());
  const Tensor scores = torch::stable::contiguous(given);
  std::optional<Tensor> labels;
  if (given_labels.has_value()) {
    check_same_device(*given_labels, scores);
    labels = torch::stable::contiguous(*given_labels);
  }
  return choose_both_cuda(scores, lowest, highest_per_class, labels, num_classes, std::nullopt, std::nullopt,
                          current_stream(scores));
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> entropy_rank_cuda(const Tensor& given, int64_t lowest,
                                                                     int64_t highest_per_class,
                                                                     const std::optional<Tensor>& given_labels) {
  check_logits(given);
  const int64_t rows = given.size(0), classes = given.size(1);
  DLP_CHECK(rows <= kMaxCudaRows, "logits must have at most ", kMaxCudaRows, " rows on CUDA");
  check_counts(rows, lowest, highest_per_class);
  const torch::stable::accelerator::DeviceGuard guard(given.get_device_index());
  const cudaStream_t stream = current_stream(given);
  const Tensor logits = contiguous_rows(given);
  Tensor entropy = empty_on(logits, rows, ScalarType::Float), top = empty_on(logits, rows, ScalarType::Int);
  Tensor labels = top;
  if (given_labels.has_value()) {
    check_labels(*given_labels, rows);
    check_same_device(*given_labels, logits);
    labels = torch::stable::contiguous(*given_labels);
  }
  // The entropy kernel counts the first digit on its way out, where the plan's first digit has the 11 bits it
  // counts.
  std::optional<Tensor> low_hist, class_hist;
  const bool few = fits_few(logits, lowest, highest_per_class, true, classes);
  if (lowest > 0 && !few) low_hist = zeros_on(logits, cpu::kHistogramBins, ScalarType::Int);
  if (highest_per_class > 0 && !few && cuda::make_plan(rows, classes).bins == cpu::kHistogramBins)
    class_hist = zeros_on(logits, classes * cpu::kHistogramBins, ScalarType::Int);
  check_cuda(cuda::row_entropy(describe(logits), given_labels.has_value() ? describe_labels(labels) : cpu::Labels{},
                               pointer<float>(entropy), pointer<int32_t>(top),
                               low_hist.has_value() ? pointer<uint32_t>(*low_hist) : nullptr,
                               class_hist.has_value() ? pointer<uint32_t>(*class_hist) : nullptr, stream));
  auto [low, high, counts, faults] =
      choose_both_cuda(entropy, lowest, highest_per_class, labels, classes, low_hist, class_hist, stream);
  return {entropy, low, high, counts, faults};
}

#endif

}  // namespace

}  // namespace dlp

#ifndef DLP_WITH_CUDA  // the library of the CUDA kernels leaves the CPU to the other one
STABLE_TORCH_LIBRARY_IMPL(dlp_fast, CPU, m) {
  m.impl("row_entropy", DLP_BOX(&dlp::row_entropy_cpu));
  m.impl("select", DLP_BOX(&dlp::select_cpu));
  m.impl("entropy_rank", DLP_BOX(&dlp::entropy_rank_cpu));
}
#else
STABLE_TORCH_LIBRARY_IMPL(dlp_fast, CUDA, m) {
  m.impl("row_entropy", DLP_BOX(&dlp::row_entropy_cuda));
  m.impl("select", DLP_BOX(&dlp::select_cuda));
  m.impl("entropy_rank", DLP_BOX(&dlp::entropy_rank_cuda));
}
#endif

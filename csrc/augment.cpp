// `augment`: checks, allocation and dispatch; the kernels are in cpu/augment.cpp and cuda/augment.cu.
#include <algorithm>
#include <tuple>

#include "check.h"
#include "cpu/augment.h"

#ifdef DLP_WITH_CUDA
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "cuda/augment.h"
#endif

namespace dlp {
namespace {

using augment::Settings;

using Views = std::tuple<Tensor, Tensor>;

Settings checked_settings(const Tensor& images, const Tensor& ids, const Tensor& table, int64_t epoch,
                          int64_t seed, bool flip, int64_t pad, int64_t operations, int64_t magnitude,
                          int64_t cutout) {
  DLP_CHECK_DIM(images, 4);
  DLP_CHECK_DIM(ids, 1);
  DLP_CHECK_DIM(table, 2);
  DLP_CHECK_DTYPE(images, ScalarType::Byte, "uint8");
  DLP_CHECK_DTYPE(ids, ScalarType::Long, "int64");
  DLP_CHECK_CONTIGUOUS(images);
  DLP_CHECK_CONTIGUOUS(ids);
  DLP_CHECK_CONTIGUOUS(table);
  const int64_t batch = images.size(0), height = images.size(1), width = images.size(2);
  DLP_CHECK(images.size(3) == 3, "images must have the shape [b, H, W, 3], got ", shape_text(images));
  DLP_CHECK(height >= 8 && height <= 256 && width >= 8 && width <= 256,
            "images must be 8 to 256 pixels high and wide, got ", shape_text(images));
  DLP_CHECK(ids.size(0) == batch, "ids must hold ", batch, " ids, one for each image, got ", ids.size(0));
  DLP_CHECK(ids.device() == images.device() && table.device() == images.device(),
            "ids and table must be on the device of images");
  const ScalarType type = table.scalar_type();
  DLP_CHECK(type == ScalarType::Float || type == ScalarType::Half || type == ScalarType::BFloat16,
            "table must be float32, float16 or bfloat16, got scalar type ", static_cast<int>(type));
  DLP_CHECK(table.size(0) == 3 && table.size(1) == 256, "table must have the shape [3, 256], got ",
            shape_text(table));
  DLP_CHECK(epoch >= 0 && epoch <= 0xFFFFFFFFll, "epoch must be in [0, 2**32), got ", epoch);
  DLP_CHECK(pad >= 0 && pad < height && pad < width,
            "pad must be at least 0 and below height and width, got ", pad);
  DLP_CHECK(operations >= 0 && operations <= 16, "operations must be from 0 to 16, got ", operations);
  DLP_CHECK(magnitude >= 2 && magnitude <= augment::kLevels,
            "magnitude must be from 2 to 10, got ", magnitude);
  DLP_CHECK(cutout >= 0 && cutout <= 256, "cutout must be from 0 to 256, got ", cutout);
  Settings settings{};
  settings.seed = static_cast<uint64_t>(seed);
  settings.epoch = static_cast<uint32_t>(epoch);
  settings.height = static_cast<int>(height);
  settings.width = static_cast<int>(width);
  settings.flip = flip;
  settings.pad = static_cast<int>(pad);
  settings.operations = static_cast<int>(operations);
  settings.magnitude = static_cast<int>(magnitude);
  settings.cutout = static_cast<int>(cutout);
  return settings;
}

Views empty_views(const Tensor& images, const Tensor& table, bool strong) {
  const int64_t batch = images.size(0), height = images.size(1), width = images.size(2);
  const ScalarType type = table.scalar_type();
  return {torch::stable::new_empty(images, {batch, height, width, 3}, type),
          torch::stable::new_empty(images, {strong ? batch : 0, height, width, 3}, type)};
}

// The raw pointers that both kernels take; Value has the size of the output type.
template <typename Value>
struct Pointers {
  const uint8_t* images;
  const int64_t* ids;
  const Value* table;
  Value* weak;
  Value* strong;

  Pointers(const Tensor& images_, const Tensor& ids_, const Tensor& table_, Views& views, bool with_strong)
      : images(static_cast<const uint8_t*>(images_.data_ptr())),
        ids(static_cast<const int64_t*>(ids_.data_ptr())),
        table(static_cast<const Value*>(table_.data_ptr())),
        weak(static_cast<Value*>(std::get<0>(views).data_ptr())),
        strong(with_strong ? static_cast<Value*>(std::get<1>(views).data_ptr()) : nullptr) {}
};

template <typename Value>
void run_cpu(const Pointers<Value>& p, int64_t batch, const Settings& settings) {
  // a 32-pixel image takes about 10 us, and less than some 50 us of work does not pay for waking a thread
  const int64_t grain = std::max<int64_t>(1, 4096 / (settings.height * settings.width));
  parallel_for(0, batch, grain, [&](int64_t begin, int64_t end) {
    augment::augment_cpu(p.images, p.ids, begin, end, settings, p.table, p.weak, p.strong);
  });
}

Views augment_on_cpu(const Tensor& images, const Tensor& ids, const Tensor& table, int64_t epoch,
                     int64_t seed, bool flip, int64_t pad, int64_t operations, int64_t magnitude,
                     int64_t cutout, bool strong) {
  const Settings settings =
      checked_settings(images, ids, table, epoch, seed, flip, pad, operations, magnitude, cutout);
  Views views = empty_views(images, table, strong);
  if (table.scalar_type() == ScalarType::Float) {
    run_cpu(Pointers<uint32_t>(images, ids, table, views, strong), images.size(0), settings);
  } else {
    run_cpu(Pointers<uint16_t>(images, ids, table, views, strong), images.size(0), settings);
  }
  return views;
}

#ifdef DLP_WITH_CUDA
void check_cuda(cudaError_t status) {
  DLP_CHECK(status == cudaSuccess, "augment: ", cudaGetErrorString(status));
}

Views augment_on_cuda(const Tensor& images, const Tensor& ids, const Tensor& table, int64_t epoch,
                      int64_t seed, bool flip, int64_t pad, int64_t operations, int64_t magnitude,
                      int64_t cutout, bool strong) {
  const Settings settings =
      checked_settings(images, ids, table, epoch, seed, flip, pad, operations, magnitude, cutout);
  const torch::stable::accelerator::DeviceGuard guard(images.get_device_index());
  Views views = empty_views(images, table, strong);
  augment::Scratch scratch{};
  check_cuda(augment::plan_scratch(settings, images.size(0), strong ? 2 : 1, &scratch));
  const Tensor memory = torch::stable::new_empty(images, {scratch.bytes}, ScalarType::Byte);
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(images.get_device_index(), &stream));
  const auto run = [&](const auto& p) {
    check_cuda(augment::augment_cuda(p.images, p.ids, images.size(0), settings, p.table, p.weak, p.strong,
                                     static_cast<uint8_t*>(memory.data_ptr()), scratch,
                                     static_cast<cudaStream_t>(stream)));
  };
  if (table.scalar_type() == ScalarType::Float) {
    run(Pointers<uint32_t>(images, ids, table, views, strong));
  } else {
    run(Pointers<uint16_t>(images, ids, table, views, strong));
  }
  return views;
}
#endif

}  // namespace
}  // namespace dlp

#ifndef DLP_WITH_CUDA  // the library of the CUDA kernels leaves the CPU to the other one
STABLE_TORCH_LIBRARY_IMPL(dlp_fast, CPU, m) { m.impl("augment", DLP_BOX(&dlp::augment_on_cpu)); }
#else
STABLE_TORCH_LIBRARY_IMPL(dlp_fast, CUDA, m) { m.impl("augment", DLP_BOX(&dlp::augment_on_cuda)); }
#endif

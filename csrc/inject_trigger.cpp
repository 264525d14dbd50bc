// inject_trigger: checks, dispatch and registration; the kernels are in cpu/ and cuda/.
#include "inject_trigger.h"

#include <algorithm>
#include <vector>

#include "check.h"
#ifdef DLP_WITH_CUDA
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "cuda/inject_trigger_launch.h"
#endif

namespace dlp {
namespace {

// Rows may be strided (every second image of a batch), pixels inside one image may not; equal rows would be written
// twice, so a stride smaller than an image (expand) is refused.
int64_t image_stride(const Tensor& images, int64_t row, int64_t column, int64_t channel, const char* name) {
  const int64_t height = images.size(row), width = images.size(column);
  const int64_t size = height * width * kChannels;
  const bool dense = images.stride(channel) == 1 && (width <= 1 || images.stride(column) == kChannels) &&
                     (height <= 1 || images.stride(row) == width * kChannels);
  DLP_CHECK(size == 0 || dense, name, " must hold its pixels densely in NHWC order, got shape ", shape_text(images),
            " with strides that do not; call .contiguous() first");
  DLP_CHECK(size == 0 || images.size(0) <= 1 || images.stride(0) >= size, name,
            " must not overlap itself: the stride between images is ", images.stride(0), " and an image has ", size,
            " values; call .contiguous() first");
  return images.size(0) <= 1 ? size : images.stride(0);
}

void check_table(const Tensor& images, const Tensor& which, const Tensor& records, const Tensor& overlay,
                 const Tensor& terms) {
  DLP_CHECK_DIM(images, 4);
  DLP_CHECK_DTYPE(images, ScalarType::Byte, "uint8");
  DLP_CHECK(images.size(3) == kChannels, "images must have shape [n, H, W, 3], got ", shape_text(images));
  DLP_CHECK_DIM(which, 1);
  DLP_CHECK_DTYPE(which, ScalarType::Long, "int64");
  DLP_CHECK_CONTIGUOUS(which);
  DLP_CHECK(which.size(0) == images.size(0), "which must have one trigger number for each of the ", images.size(0),
            " images, got shape ", shape_text(which));
  DLP_CHECK_DIM(records, 2);
  DLP_CHECK_DTYPE(records, ScalarType::Long, "int64");
  DLP_CHECK(records.size(1) == kRecordFields, "records must have ", kRecordFields, " columns, got shape ",
            shape_text(records));
  DLP_CHECK_CONTIGUOUS(records);
  DLP_CHECK_DIM(overlay, 1);
  DLP_CHECK_DTYPE(overlay, ScalarType::Byte, "uint8");
  DLP_CHECK_CONTIGUOUS(overlay);
  DLP_CHECK_DIM(terms, 1);
  DLP_CHECK_DTYPE(terms, ScalarType::Short, "int16");
  DLP_CHECK_CONTIGUOUS(terms);
  for (const Tensor* table : {&which, &records, &overlay, &terms}) {
    DLP_CHECK(table->is_cuda() == images.is_cuda() && table->get_device_index() == images.get_device_index(),
              "images, which and the trigger table must be on one device");
  }
}

InjectArgs arguments(const Tensor& images, const Tensor& which, const Tensor& records, const Tensor& overlay,
                     const Tensor& terms) {
  check_table(images, which, records, overlay, terms);
  InjectArgs args{};
  args.images = images.const_data_ptr<uint8_t>();
  args.images_stride = image_stride(images, 1, 2, 3, "images");
  args.which = which.const_data_ptr<int64_t>();
  args.count = images.size(0);
  args.height = images.size(1);
  args.width = images.size(2);
  args.records = reinterpret_cast<const TriggerRecord*>(records.const_data_ptr<int64_t>());
  args.record_count = records.size(0);
  args.overlay = overlay.const_data_ptr<uint8_t>();
  args.overlay_size = overlay.numel();
  args.terms = terms.const_data_ptr<int16_t>();
  args.terms_size = terms.numel();
  return args;
}

InjectArgs in_place_arguments(const Tensor& images, const Tensor& which, const Tensor& records,
                              const Tensor& overlay, const Tensor& terms) {
  InjectArgs args = arguments(images, which, records, overlay, terms);
  args.out = images.mutable_data_ptr();
  args.out_stride = args.images_stride;
  args.out_type = PixelOut::kUInt8;
  return args;
}

InjectArgs out_arguments(const Tensor& images, const Tensor& which, const Tensor& records, const Tensor& overlay,
                         const Tensor& terms, const std::vector<double>& affine, const Tensor& out) {
  InjectArgs args = arguments(images, which, records, overlay, terms);
  DLP_CHECK_DIM(out, 4);
  DLP_CHECK(out.is_cuda() == images.is_cuda() && out.get_device_index() == images.get_device_index(),
            "out must be on the device of images");
  const bool bytes = out.scalar_type() == ScalarType::Byte;
  switch (out.scalar_type()) {
    case ScalarType::Byte: args.out_type = PixelOut::kUInt8; break;
    case ScalarType::Float: args.out_type = PixelOut::kFloat32; break;
    case ScalarType::Half: args.out_type = PixelOut::kFloat16; break;
    case ScalarType::BFloat16: args.out_type = PixelOut::kBFloat16; break;
    default:
      DLP_CHECK(false, "out must be uint8, float32, float16 or bfloat16, got scalar type ",
                static_cast<int>(out.scalar_type()));
  }
  const int64_t row = bytes ? 1 : 2, column = bytes ? 2 : 3, channel = bytes ? 3 : 1;
  DLP_CHECK(out.size(0) == args.count && out.size(row) == args.height && out.size(column) == args.width &&
                out.size(channel) == kChannels,
            "out must hold as many images of the same size as images ", shape_text(images),
            bytes ? " in shape [n, H, W, 3]" : " in shape [n, 3, H, W], channels last", ", got ", shape_text(out));
  args.out = out.mutable_data_ptr();
  args.out_stride = image_stride(out, row, column, channel, "out");
  DLP_CHECK(affine.size() == 2 * kChannels, "affine must hold 6 numbers, scale and shift of 3 channels, got ",
            affine.size());
  for (int64_t c = 0; c < kChannels; ++c) {
    args.affine.scale[c] = static_cast<float>(affine[c]);
    args.affine.shift[c] = static_cast<float>(affine[kChannels + c]);
  }
  const int64_t size = args.height * args.width * kChannels;
  const int64_t element = bytes ? 1 : (args.out_type == PixelOut::kFloat32 ? 4 : 2);
  const auto* out_begin = static_cast<const uint8_t*>(args.out);
  const uint8_t* out_end = out_begin + ((args.count - 1) * args.out_stride + size) * element;
  const uint8_t* images_end = args.images + (args.count - 1) * args.images_stride + size;
  DLP_CHECK(images.numel() == 0 || out_end <= args.images || images_end <= out_begin,
            "out must not share memory with images; for work in place give out=images itself");
  return args;
}

// Nothing is written unless everything is in order.
void check_on_host(const InjectArgs& args) {
  for (int64_t t = 0; t < args.record_count; ++t) {
    DLP_CHECK(record_is_valid(args.records[t], args.height, args.width, args.overlay_size, args.terms_size),
              "triggers: trigger ", t, " does not fit images of ", args.height, " x ", args.width,
              " pixels, or its table is damaged");
  }
  for (int64_t i = 0; i < args.count; ++i) {
    DLP_CHECK(args.which[i] >= -1 && args.which[i] < args.record_count,
              "which must hold -1 or a trigger number below ", args.record_count, ", got ", args.which[i],
              " for image ", i);
  }
}

// About 64 KiB for each thread at the least: less is done sooner than a thread wakes.
int64_t grain(const InjectArgs& args) {
  const int64_t unit = std::min(args.height, kBandRows) * args.width * kChannels;
  return std::max<int64_t>(1, (64 << 10) / std::max<int64_t>(unit, 1));
}

// faults, int64 [2]: the first image whose number is out of range and the first whose record is damaged; -1 for none.
Tensor empty_faults(const Tensor& like) {
  const std::vector<int64_t> sizes{2};
  return torch::stable::new_empty(like, sizes, ScalarType::Long);
}

// On the host everything was in order, or check_on_host would have thrown.
Tensor no_faults(const Tensor& like) {
  Tensor faults = empty_faults(like);
  std::fill_n(faults.mutable_data_ptr<int64_t>(), 2, int64_t{-1});
  return faults;
}

Tensor inject_in_place_cpu(Tensor images, Tensor which, Tensor records, Tensor overlay, Tensor terms) {
  const InjectArgs args = in_place_arguments(images, which, records, overlay, terms);
  check_on_host(args);
  std::vector<int64_t> poisoned;
  for (int64_t i = 0; i < args.count; ++i) {
    if (args.which[i] >= 0) poisoned.push_back(i);
  }
  const int64_t units = images.numel() == 0 ? 0 : static_cast<int64_t>(poisoned.size()) * bands_of(args.height);
  parallel_for(0, units, grain(args), [&](int64_t begin, int64_t end) {
    inject_trigger_cpu(args, poisoned.data(), begin, end);
  });
  return no_faults(images);
}

Tensor inject_out_cpu(Tensor images, Tensor which, Tensor records, Tensor overlay, Tensor terms,
                      std::vector<double> affine, Tensor out) {
  const InjectArgs args = out_arguments(images, which, records, overlay, terms, affine, out);
  check_on_host(args);
  const int64_t units = images.numel() == 0 ? 0 : args.count * bands_of(args.height);
  parallel_for(0, units, grain(args), [&](int64_t begin, int64_t end) {
    inject_trigger_cpu(args, nullptr, begin, end);
  });
  return no_faults(images);
}

#ifdef DLP_WITH_CUDA
// `which` and the records stay on the GPU: the kernel looks at them there and counts what it finds, no host sync. An
// image with a fault is left as it is.
Tensor launch(InjectArgs args, const Tensor& images) {
  DLP_CHECK(images.numel() == 0 || (args.height * args.width * kChannels < (int64_t{1} << 31) &&
                                    args.count < (int64_t{1} << 31)),
            "images on a GPU must be fewer than 2^31, of less than 2^31 bytes each, got ", shape_text(images));
  const torch::stable::accelerator::DeviceGuard guard(images.get_device_index());
  Tensor faults = empty_faults(images);
  args.faults = faults.mutable_data_ptr<int64_t>();
  void* stream = nullptr;
  DLP_CHECK(aoti_torch_get_current_cuda_stream(images.get_device_index(), &stream) == 0, "no CUDA stream");
  const cudaError_t status = inject_trigger_cuda(args, static_cast<cudaStream_t>(stream));
  DLP_CHECK(status == cudaSuccess, "inject_trigger: ", cudaGetErrorString(status));
  return faults;
}

Tensor inject_in_place_cuda(Tensor images, Tensor which, Tensor records, Tensor overlay, Tensor terms) {
  return launch(in_place_arguments(images, which, records, overlay, terms), images);
}

Tensor inject_out_cuda(Tensor images, Tensor which, Tensor records, Tensor overlay, Tensor terms,
                       std::vector<double> affine, Tensor out) {
  return launch(out_arguments(images, which, records, overlay, terms, affine, out), images);
}
#endif

}  // namespace

#ifndef DLP_WITH_CUDA  // the library of the CUDA kernels leaves the CPU to the other one
STABLE_TORCH_LIBRARY_IMPL(dlp_fast, CPU, m) {
  m.impl("inject_trigger_", DLP_BOX(&inject_in_place_cpu));
  m.impl("inject_trigger_out", DLP_BOX(&inject_out_cpu));
}
#else
STABLE_TORCH_LIBRARY_IMPL(dlp_fast, CUDA, m) {
  m.impl("inject_trigger_", DLP_BOX(&inject_in_place_cuda));
  m.impl("inject_trigger_out", DLP_BOX(&inject_out_cuda));
}
#endif

}  // namespace dlp

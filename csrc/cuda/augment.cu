// One block an image, both views in one launch. The image lives in two buffers ("canvases") in shared memory,
// and operations go over it in place or from one to the other; only the views are written to global memory.
//
// Bytes at 32 px, fp32, per image: 3 KiB read (the strong view's read hits a cache), 24 KiB written. 64
// registers allow 4 blocks of 256 threads on an SM, whose 13 KiB of shared memory each are no limit:
// FixMatch's 448 images are one wave on 132 SMs. At 224 px one canvas (147 KiB) is in shared memory and the
// other in global scratch, of which L2 holds what the images in flight (one an SM) need; 256 px is the same
// on sm_90, and takes two canvases of scratch on sm_80.
#include "cuda/augment.h"

namespace dlp::augment {
namespace {

constexpr unsigned kFullWarp = 0xFFFFFFFFu;
constexpr int kWarp = 32;
constexpr int kMaxThreads = 1024;
constexpr int kBinsPerLane = kBins / kWarp;

// Left to the block's own variables; the rest of shared memory is for canvases.
constexpr int kStaticBytes = 8192;

template <typename Value>
struct Shared {
  Value table[kChannels * kBins];
  int histogram[kChannels * kBins];
  uint8_t lut[kChannels * kBins];
  int luma_sum;
};
static_assert(sizeof(Shared<uint32_t>) <= kStaticBytes);

// What a block knows of its image. Every function below is called by all threads of the block, starts with
// the canvases settled and leaves them settled (__syncthreads before it returns).
template <typename Value>
struct Block {
  const Settings& settings;
  Shared<Value>& shared;
  uint8_t* front;
  uint8_t* back;
  int pixels;

  __device__ void swap() {
    uint8_t* other = back;
    back = front;
    front = other;
  }

  __device__ void load(const uint8_t* image, const View& view) {
    for (int p = threadIdx.x; p < pixels; p += blockDim.x) {
      const int y = p / settings.width, x = p - y * settings.width;
      const int row = source_row(view, settings, y), column = source_column(view, settings, x);
      const uint8_t* from = image + kChannels * (row * settings.width + column);
      for (int c = 0; c < kChannels; ++c) front[kChannels * p + c] = from[c];
    }
    __syncthreads();
  }

  __device__ void store(Value* out) {
    for (int i = threadIdx.x; i < kChannels * pixels; i += blockDim.x) {
      out[i] = shared.table[(i % kChannels) * kBins + front[i]];
    }
    __syncthreads();
  }

  __device__ void look_up() {
    for (int i = threadIdx.x; i < kChannels * pixels; i += blockDim.x) {
      front[i] = shared.lut[(i % kChannels) * kBins + front[i]];
    }
    __syncthreads();
  }

  __device__ int mean_luma() {
    if (threadIdx.x == 0) shared.luma_sum = 0;
    __syncthreads();
    int sum = 0;  // at most 255 * 65536 for the whole image
    for (int p = threadIdx.x; p < pixels; p += blockDim.x) {
      const uint8_t* pixel = front + kChannels * p;
      sum += luma(pixel[0], pixel[1], pixel[2]);
    }
    for (int step = kWarp / 2; step > 0; step /= 2) sum += __shfl_down_sync(kFullWarp, sum, step);
    if (threadIdx.x % kWarp == 0) atomicAdd(&shared.luma_sum, sum);
    __syncthreads();
    return rounded_mean(shared.luma_sum, pixels);
  }

  __device__ void pointwise_operation(const Draw& draw) {
    const int mean = draw.operation == kContrast ? mean_luma() : 0;
    for (int i = threadIdx.x; i < kChannels * kBins; i += blockDim.x) {
      shared.lut[i] = pointwise(draw, i % kBins, mean);
    }
    __syncthreads();
    look_up();
  }

  __device__ void histogram_operation(int operation) {
    for (int i = threadIdx.x; i < kChannels * kBins; i += blockDim.x) shared.histogram[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < kChannels * pixels; i += blockDim.x) {
      atomicAdd(&shared.histogram[(i % kChannels) * kBins + front[i]], 1);
    }
    __syncthreads();
    // a warp a channel, eight neighbouring bins a lane
    const int channel = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    if (channel < kChannels) {
      const int* count = shared.histogram + channel * kBins;
      const int first = lane * kBinsPerLane;
      int sum = 0, low = kBins - 1, high = 0;
      for (int v = first + kBinsPerLane - 1; v >= first; --v) {
        if (count[v] == 0) continue;
        sum += count[v];
        low = v;
        high = high > v ? high : v;
      }
      int through = sum;  // pixels up to the last bin of this lane
      for (int step = 1; step < kWarp; step *= 2) {
        const int other_low = __shfl_xor_sync(kFullWarp, low, step);
        const int other_high = __shfl_xor_sync(kFullWarp, high, step);
        const int earlier = __shfl_up_sync(kFullWarp, through, step);
        low = other_low < low ? other_low : low;
        high = other_high > high ? other_high : high;
        through += lane >= step ? earlier : 0;
      }
      int before = through - sum;
      for (int v = first; v < first + kBinsPerLane; ++v) {
        shared.lut[channel * kBins + v] =
            operation == kAutoContrast ? auto_contrast(v, low, high)
                                       : equalize(v, before, count[high], pixels);
        before += count[v];
      }
    }
    __syncthreads();
    look_up();
  }

  __device__ void color(float factor) {
    for (int p = threadIdx.x; p < pixels; p += blockDim.x) {
      uint8_t* pixel = front + kChannels * p;
      const int grey = luma(pixel[0], pixel[1], pixel[2]);
      for (int c = 0; c < kChannels; ++c) pixel[c] = blend(grey, pixel[c], factor);
    }
    __syncthreads();
  }

  // The border is its own smoothed value, so it stays as it is.
  __device__ void sharpness(float factor) {
    const int row = kChannels * settings.width;
    for (int p = threadIdx.x; p < pixels; p += blockDim.x) {
      const int y = p / settings.width, x = p - y * settings.width;
      const bool border = x == 0 || y == 0 || x == settings.width - 1 || y == settings.height - 1;
      for (int c = 0; c < kChannels; ++c) {
        const uint8_t* here = front + kChannels * p + c;
        uint8_t value = *here;
        if (!border) {
          int sum = 4 * value;
          for (int dy = -1; dy <= 1; ++dy) {
            for (int dx = -1; dx <= 1; ++dx) sum += here[dy * row + dx * kChannels];
          }
          value = blend(smooth(sum), value, factor);
        }
        back[kChannels * p + c] = value;
      }
    }
    __syncthreads();
    swap();
  }

  __device__ void geometric(const Affine& map) {
    for (int p = threadIdx.x; p < pixels; p += blockDim.x) {
      const int y = p / settings.width, x = p - y * settings.width;
      const int column = (map.xx + x * map.a + y * map.b) >> 16;
      const int line = (map.yy + x * map.d + y * map.e) >> 16;
      const bool inside = column >= 0 && column < settings.width && line >= 0 && line < settings.height;
      for (int c = 0; c < kChannels; ++c) {
        back[kChannels * p + c] = inside ? front[kChannels * (line * settings.width + column) + c] : 0;
      }
    }
    __syncthreads();
    swap();
  }

  __device__ void apply(const Draw& draw) {
    switch (draw.operation) {
      case kIdentity:
        return;
      case kAutoContrast:
      case kEqualize:
        return histogram_operation(draw.operation);
      case kColor:
        return color(blend_factor(draw.level));
      case kSharpness:
        return sharpness(blend_factor(draw.level));
      case kBrightness:
      case kContrast:
      case kPosterize:
      case kSolarize:
        return pointwise_operation(draw);
      default:
        return geometric(affine_of(draw, settings.height, settings.width));
    }
  }

  __device__ void cut_out(const Box& box) {
    const int width = box.x1 - box.x0 + 1, area = width * (box.y1 - box.y0 + 1);
    for (int k = threadIdx.x; k < area; k += blockDim.x) {
      uint8_t* pixel = front + kChannels * ((box.y0 + k / width) * settings.width + box.x0 + k % width);
      for (int c = 0; c < kChannels; ++c) pixel[c] = kGrey;
    }
    __syncthreads();
  }
};

template <typename Value>
__global__ void __launch_bounds__(kMaxThreads)
    augment_kernel(const uint8_t* __restrict__ images, const int64_t* __restrict__ ids,
                   const __grid_constant__ Settings settings, const Value* __restrict__ table,
                   Value* __restrict__ weak, Value* __restrict__ strong, uint8_t* scratch, int missing) {
  extern __shared__ uint8_t canvases[];
  __shared__ Shared<Value> shared;
  const int pixels = settings.height * settings.width;
  const int64_t size = int64_t{kChannels} * pixels, image = blockIdx.x;
  // shared memory first, then scratch
  uint8_t* own_scratch = scratch + image * missing * size;
  const int wanted = strong == nullptr ? 1 : 2;
  uint8_t* front = missing < wanted ? canvases : own_scratch;
  uint8_t* back = missing == 0 ? canvases + size : own_scratch + (missing - 1) * size;
  Block<Value> block{settings, shared, front, back, pixels};

  for (int i = threadIdx.x; i < kChannels * kBins; i += blockDim.x) shared.table[i] = table[i];
  // every thread draws the parameters for itself: cheaper than to pass them on
  const int64_t id = ids[image];
  block.load(images + image * size, draw_view(settings, id, kBlockWeak));
  block.store(weak + image * size);
  if (strong == nullptr) return;
  block.load(images + image * size, draw_view(settings, id, kBlockStrong));
  for (int k = 0; k < settings.operations; ++k) block.apply(draw_operation(settings, id, k));
  block.cut_out(draw_cutout(settings, id));
  block.store(strong + image * size);
}

int64_t canvas_bytes(const Settings& settings) {
  return int64_t{kChannels} * settings.height * settings.width;
}

// Shared memory that the current device can give to the canvases of a block.
cudaError_t canvas_room(int* room) {
  int device = 0;
  const cudaError_t status = cudaGetDevice(&device);
  if (status != cudaSuccess) return status;
  const cudaError_t asked = cudaDeviceGetAttribute(room, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  *room -= kStaticBytes;
  return asked;
}

}  // namespace

cudaError_t scratch_canvases(const Settings& settings, int wanted, int* missing) {
  int room = 0;
  const cudaError_t status = canvas_room(&room);
  if (status != cudaSuccess) return status;
  const int64_t fitting = room / canvas_bytes(settings);
  *missing = fitting >= wanted ? 0 : wanted - static_cast<int>(fitting);
  return cudaSuccess;
}

template <typename Value>
cudaError_t augment_cuda(const uint8_t* images, const int64_t* ids, int64_t batch, const Settings& settings,
                         const Value* table, Value* weak, Value* strong, uint8_t* scratch, int missing,
                         cudaStream_t stream) {
  if (batch == 0) return cudaSuccess;
  const int in_shared = (strong == nullptr ? 1 : 2) - missing;
  const size_t bytes = static_cast<size_t>(in_shared * canvas_bytes(settings));
  int room = 0;
  cudaError_t status = canvas_room(&room);
  if (status != cudaSuccess) return status;
  // always the same limit, so that calls from two threads cannot take it from each other
  status = cudaFuncSetAttribute(augment_kernel<Value>, cudaFuncAttributeMaxDynamicSharedMemorySize, room);
  if (status != cudaSuccess) return status;
  // a small image has no work for more threads; a large one is alone on its SM and needs them all
  const int threads = settings.height * settings.width <= 64 * 64 ? 256 : kMaxThreads;
  augment_kernel<Value><<<static_cast<unsigned>(batch), threads, bytes, stream>>>(
      images, ids, settings, table, weak, strong, scratch, missing);
  return cudaGetLastError();
}

template cudaError_t augment_cuda<uint16_t>(const uint8_t*, const int64_t*, int64_t, const Settings&,
                                            const uint16_t*, uint16_t*, uint16_t*, uint8_t*, int,
                                            cudaStream_t);
template cudaError_t augment_cuda<uint32_t>(const uint8_t*, const int64_t*, int64_t, const Settings&,
                                            const uint32_t*, uint32_t*, uint32_t*, uint8_t*, int,
                                            cudaStream_t);

}  // namespace dlp::augment

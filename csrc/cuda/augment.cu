// One block an image at a time, both views in one launch. The image lives in two buffers ("canvases") in shared memory,
// and operations go over it in place or from one to the other; only the views are written to global memory.
//
// Canvases are read and written by words: a thread has 4 values of one word where channels do not meet, else the 12
// values of 4 pixels. What a block has to draw (fp64 for rotations) is drawn by one thread each and shared. Bytes at
// 32 px, fp32, per image: 3 KiB read, 24 KiB written, in stores of 16 bytes (8 for 16-bit outputs) next to each other.
//
// At 224 px one canvas (147 KiB) is in shared memory and the other in global scratch, of which L2 holds what the images
// in flight (one an SM) need: scratch is kept for those, not for the batch. What an operation wrote there is fetched
// back, so that the next one finds it in shared memory. 256 px is the same on sm_90, and takes two canvases of scratch
// on sm_80.
#include "cuda/augment.h"

#include <algorithm>

namespace dlp::augment {
namespace {

constexpr unsigned kFullWarp = 0xFFFFFFFFu;
constexpr int kWarp = 32;
constexpr int kMinThreads = 256, kMaxThreads = 1024;
constexpr int kBinsPerLane = kBins / kWarp;

// Left to the block's own variables; the rest of shared memory is for canvases.
constexpr int kStaticBytes = 8192;

constexpr int kMostOperations = 16;
constexpr int kGroup = 4;                        // pixels of a thread at a time
constexpr int kGroupValues = kGroup * kChannels;  // 3 words

// What is drawn for an image.
struct Program {
  View weak, strong;
  Box cutout;
  Draw draws[kMostOperations];
  Affine maps[kMostOperations];
};

template <typename Value>
struct Shared {
  Value table[kChannels * kBins];
  int histogram[kChannels * kBins];
  uint8_t lut[kChannels * kBins];
  int luma_sum;
  Program program;
};
static_assert(sizeof(Shared<uint32_t>) <= kStaticBytes);

// The values of a word or of a group of pixels, in registers: every index is known when compiling.
struct Word {
  uint32_t bits;
  __device__ __forceinline__ uint8_t at(int i) const { return static_cast<uint8_t>(bits >> (8 * i)); }
};
struct Group {
  uint32_t word[3] = {0, 0, 0};
  __device__ __forceinline__ uint8_t at(int i) const { return static_cast<uint8_t>(word[i / 4] >> (i % 4 * 8)); }
  __device__ __forceinline__ void put(int i, uint8_t value) { word[i / 4] |= uint32_t{value} << (i % 4 * 8); }
};

// Four output values next to each other.
__device__ __forceinline__ void write_four(uint16_t* to, const uint16_t (&v)[4]) {
  *reinterpret_cast<uint2*>(to) = make_uint2(v[0] | uint32_t{v[1]} << 16, v[2] | uint32_t{v[3]} << 16);
}
__device__ __forceinline__ void write_four(uint32_t* to, const uint32_t (&v)[4]) {
  *reinterpret_cast<uint4*>(to) = make_uint4(v[0], v[1], v[2], v[3]);
}

__device__ __forceinline__ bool aligned(const void* pointer, unsigned to) {
  return reinterpret_cast<uintptr_t>(pointer) % to == 0;
}

// What a block knows of its image. Every function below is called by all threads of the block, starts with
// the canvases settled and leaves them settled (__syncthreads before it returns).
template <typename Value>
struct Block {
  const Settings& settings;
  Shared<Value>& shared;
  uint8_t* front;  // canvases are of whole groups and of 16 bytes: what is behind the image is written, never used
  uint8_t* back;
  int pixels;
  bool back_is_far;  // in global memory while the front is in shared memory

  __device__ int groups() const { return (pixels + kGroup - 1) / kGroup; }
  __device__ int values() const { return kChannels * pixels; }

  __device__ __forceinline__ Group group(const uint8_t* canvas, int q) const {
    const uint32_t* from = reinterpret_cast<const uint32_t*>(canvas) + 3 * q;
    Group g;
    for (int w = 0; w < 3; ++w) g.word[w] = from[w];
    return g;
  }
  __device__ __forceinline__ void put_group(uint8_t* canvas, int q, const Group& g) const {
    uint32_t* to = reinterpret_cast<uint32_t*>(canvas) + 3 * q;
    for (int w = 0; w < 3; ++w) to[w] = g.word[w];
  }

  // Calls visit(k, x, y) for the pixels k = 0..3 of group q; those behind the image are the last one again.
  template <class Visit>
  __device__ __forceinline__ void each_pixel(int q, const Visit& visit) const {
    int y = q * kGroup / settings.width, x = q * kGroup - y * settings.width;
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      visit(k, x, y);
      if (++x < settings.width) continue;
      if (y + 1 < settings.height) {
        x = 0;
        ++y;
      } else {
        --x;
      }
    }
  }

  // The back becomes the front.
  __device__ void turn() {
    if (back_is_far) {
      const uint4* from = reinterpret_cast<const uint4*>(back);
      uint4* to = reinterpret_cast<uint4*>(front);
      const int words = 3 * groups();
      for (int i = threadIdx.x; i < words / 4; i += blockDim.x) to[i] = from[i];
      for (int w = words / 4 * 4 + threadIdx.x; w < words; w += blockDim.x)
        reinterpret_cast<uint32_t*>(front)[w] = reinterpret_cast<const uint32_t*>(back)[w];
      __syncthreads();
      return;
    }
    uint8_t* other = back;
    back = front;
    front = other;
  }

  // The image as it is, to where views are cropped from.
  __device__ void stage(const uint8_t* image) {
    const bool whole = aligned(image, 16) && values() % 16 == 0;
    if (whole) {
      for (int i = threadIdx.x; i < values() / 16; i += blockDim.x)
        reinterpret_cast<uint4*>(back)[i] = reinterpret_cast<const uint4*>(image)[i];
    } else {
      for (int i = threadIdx.x; i < values(); i += blockDim.x) back[i] = image[i];
    }
    __syncthreads();
  }

  __device__ void load(const uint8_t* image, const View& view) {
    for (int q = threadIdx.x; q < groups(); q += blockDim.x) {
      Group g;
      each_pixel(q, [&](int k, int x, int y) {
        const int row = source_row(view, settings, y), column = source_column(view, settings, x);
        const uint8_t* from = image + kChannels * (row * settings.width + column);
#pragma unroll
        for (int c = 0; c < kChannels; ++c) g.put(kChannels * k + c, from[c]);
      });
      put_group(front, q, g);
    }
    __syncthreads();
  }

  __device__ void store(Value* out) {
    const bool wide = aligned(out, 4 * sizeof(Value));
    const int whole = wide ? values() / 4 : 0;
    for (int q = threadIdx.x; q < whole; q += blockDim.x) {
      const Word word{reinterpret_cast<const uint32_t*>(front)[q]};
      Value v[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = shared.table[(q + i) % kChannels * kBins + word.at(i)];  // 4 q = q (mod 3)
      write_four(out + 4 * q, v);
    }
    for (int i = 4 * whole + threadIdx.x; i < values(); i += blockDim.x)
      out[i] = shared.table[i % kChannels * kBins + front[i]];
    __syncthreads();
  }

  __device__ void look_up() {
    uint32_t* words = reinterpret_cast<uint32_t*>(front);
    for (int q = threadIdx.x; q < (values() + 3) / 4; q += blockDim.x) {
      const Word word{words[q]};
      uint32_t bits = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) bits |= uint32_t{shared.lut[(q + i) % kChannels * kBins + word.at(i)]} << (8 * i);
      words[q] = bits;
    }
    __syncthreads();
  }

  __device__ int mean_luma() {
    if (threadIdx.x == 0) shared.luma_sum = 0;
    __syncthreads();
    int sum = 0;  // at most 255 * 65536 for the whole image
    for (int q = threadIdx.x; q < groups(); q += blockDim.x) {
      const Group g = group(front, q);
#pragma unroll
      for (int k = 0; k < kGroup; ++k)
        if (q * kGroup + k < pixels) sum += luma(g.at(3 * k), g.at(3 * k + 1), g.at(3 * k + 2));
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
    for (int q = threadIdx.x; q < (values() + 3) / 4; q += blockDim.x) {
      const Word word{reinterpret_cast<const uint32_t*>(front)[q]};
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (4 * q + i < values()) atomicAdd(&shared.histogram[(q + i) % kChannels * kBins + word.at(i)], 1);
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
    for (int q = threadIdx.x; q < groups(); q += blockDim.x) {
      const Group g = group(front, q);
      Group y;
#pragma unroll
      for (int k = 0; k < kGroup; ++k) {
        const int grey = luma(g.at(3 * k), g.at(3 * k + 1), g.at(3 * k + 2));
#pragma unroll
        for (int c = 0; c < kChannels; ++c) y.put(3 * k + c, blend(grey, g.at(3 * k + c), factor));
      }
      put_group(front, q, y);
    }
    __syncthreads();
  }

  // The border is its own smoothed value, so it stays as it is.
  __device__ void sharpness(float factor) {
    const int row = kChannels * settings.width;
    for (int q = threadIdx.x; q < groups(); q += blockDim.x) {
      Group g;
      each_pixel(q, [&](int k, int x, int y) {
        const bool border = x == 0 || y == 0 || x == settings.width - 1 || y == settings.height - 1;
        const uint8_t* here = front + kChannels * (y * settings.width + x);
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
          uint8_t value = here[c];
          if (!border) {
            int sum = 4 * value;
            for (int dy = -1; dy <= 1; ++dy) {
              for (int dx = -1; dx <= 1; ++dx) sum += here[c + dy * row + dx * kChannels];
            }
            value = blend(smooth(sum), value, factor);
          }
          g.put(kChannels * k + c, value);
        }
      });
      put_group(back, q, g);
    }
    __syncthreads();
    turn();
  }

  __device__ void geometric(const Affine& map) {
    for (int q = threadIdx.x; q < groups(); q += blockDim.x) {
      Group g;
      each_pixel(q, [&](int k, int x, int y) {
        const int column = (map.xx + x * map.a + y * map.b) >> 16;
        const int line = (map.yy + x * map.d + y * map.e) >> 16;
        const bool inside = column >= 0 && column < settings.width && line >= 0 && line < settings.height;
        const uint8_t* from = front + kChannels * (inside ? line * settings.width + column : 0);
#pragma unroll
        for (int c = 0; c < kChannels; ++c) g.put(kChannels * k + c, inside ? from[c] : uint8_t{0});
      });
      put_group(back, q, g);
    }
    __syncthreads();
    turn();
  }

  __device__ void apply(const Draw& draw, const Affine& map) {
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
        return geometric(map);
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

  // A thread for each thing to draw; a fp64 rotation by every thread would cost more than the rotation itself.
  __device__ void draw_all(int64_t id) {
    Program& program = shared.program;
    const int t = threadIdx.x;
    if (t < settings.operations) {
      const Draw draw = draw_operation(settings, id, t);
      program.draws[t] = draw;
      if (is_geometric(draw.operation)) program.maps[t] = affine_of(draw, settings.height, settings.width);
    }
    if (t == kWarp) program.weak = draw_view(settings, id, kBlockWeak);
    if (t == 2 * kWarp) program.strong = draw_view(settings, id, kBlockStrong);
    if (t == 3 * kWarp) program.cutout = draw_cutout(settings, id);
    __syncthreads();
  }
};

// One block an SM is asked for where one fits, for else ptxas spills on 10.0.
template <typename Value, int kThreads>
__global__ void __launch_bounds__(kThreads, kThreads == 1024 ? 1 : 0)
    augment_kernel(const uint8_t* __restrict__ images, const int64_t* __restrict__ ids, int64_t batch,
                   const __grid_constant__ Settings settings, const Value* __restrict__ table,
                   Value* __restrict__ weak, Value* __restrict__ strong, uint8_t* scratch, int missing,
                   int64_t canvas) {
  extern __shared__ uint4 dynamic[];
  __shared__ Shared<Value> shared;
  uint8_t* canvases = reinterpret_cast<uint8_t*>(dynamic);
  const int pixels = settings.height * settings.width;
  const int64_t size = int64_t{kChannels} * pixels;
  for (int i = threadIdx.x; i < kChannels * kBins; i += blockDim.x) shared.table[i] = table[i];
  // shared memory first, then this block's scratch
  uint8_t* own_scratch = scratch + int64_t{blockIdx.x} * missing * canvas;
  const int wanted = strong == nullptr ? 1 : 2;
  uint8_t* front = missing < wanted ? canvases : own_scratch;
  uint8_t* back = missing == 0 ? canvases + canvas : own_scratch + (missing - 1) * canvas;
  for (int64_t image = blockIdx.x; image < batch; image += gridDim.x) {
    Block<Value> block{settings, shared, front, back, pixels, missing == 1 && wanted == 2};
    block.draw_all(ids[image]);
    const uint8_t* source = images + image * size;
    if (wanted == 2 && missing == 0) {  // a canvas is free until the first operation
      block.stage(source);
      source = back;
    }
    block.load(source, shared.program.weak);
    block.store(weak + image * size);
    if (strong == nullptr) continue;
    block.load(source, shared.program.strong);
    for (int k = 0; k < settings.operations; ++k) block.apply(shared.program.draws[k], shared.program.maps[k]);
    block.cut_out(shared.program.cutout);
    block.store(strong + image * size);
  }
}

// A canvas of whole groups and of whole 16 bytes.
int64_t canvas_bytes(const Settings& settings) {
  const int64_t pixels = int64_t{settings.height} * settings.width;
  return (pixels + kGroup - 1) / kGroup * kGroupValues / 16 * 16 + 16;
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

cudaError_t plan_scratch(const Settings& settings, int64_t batch, int wanted, Scratch* scratch) {
  int room = 0, device = 0, processors = 0;
  cudaError_t status = canvas_room(&room);
  if (status == cudaSuccess) status = cudaGetDevice(&device);
  if (status == cudaSuccess)
    status = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (status != cudaSuccess) return status;
  const int64_t fitting = room / canvas_bytes(settings);
  scratch->missing = fitting >= wanted ? 0 : wanted - static_cast<int>(fitting);
  // with scratch, as many blocks as run at once: shared memory, or 1024 threads, leave room for two an SM at most
  scratch->blocks = scratch->missing == 0 ? batch : std::min<int64_t>(batch, int64_t{processors} * 2);
  scratch->bytes = scratch->blocks * scratch->missing * canvas_bytes(settings);
  return cudaSuccess;
}

namespace {

template <typename Value, int kThreads>
cudaError_t launch(const uint8_t* images, const int64_t* ids, int64_t batch, const Settings& settings,
                   const Value* table, Value* weak, Value* strong, uint8_t* memory, const Scratch& scratch,
                   cudaStream_t stream) {
  const int64_t canvas = canvas_bytes(settings);
  const size_t bytes = static_cast<size_t>(((strong == nullptr ? 1 : 2) - scratch.missing) * canvas);
  int room = 0;
  cudaError_t status = canvas_room(&room);
  if (status != cudaSuccess) return status;
  // always the same limit, so that calls from two threads cannot take it from each other
  status = cudaFuncSetAttribute(augment_kernel<Value, kThreads>, cudaFuncAttributeMaxDynamicSharedMemorySize, room);
  if (status != cudaSuccess) return status;
  augment_kernel<Value, kThreads><<<static_cast<unsigned>(scratch.blocks), kThreads, bytes, stream>>>(
      images, ids, batch, settings, table, weak, strong, memory, scratch.missing, canvas);
  return cudaGetLastError();
}

}  // namespace

template <typename Value>
cudaError_t augment_cuda(const uint8_t* images, const int64_t* ids, int64_t batch, const Settings& settings,
                         const Value* table, Value* weak, Value* strong, uint8_t* memory, const Scratch& scratch,
                         cudaStream_t stream) {
  if (batch == 0) return cudaSuccess;
  // a small image has no work for more threads; a large one is alone on its SM and needs them all
  const bool small = settings.height * settings.width <= 64 * 64;
  const auto run = small ? launch<Value, kMinThreads> : launch<Value, kMaxThreads>;
  return run(images, ids, batch, settings, table, weak, strong, memory, scratch, stream);
}

template cudaError_t augment_cuda<uint16_t>(const uint8_t*, const int64_t*, int64_t, const Settings&,
                                            const uint16_t*, uint16_t*, uint16_t*, uint8_t*, const Scratch&,
                                            cudaStream_t);
template cudaError_t augment_cuda<uint32_t>(const uint8_t*, const int64_t*, int64_t, const Settings&,
                                            const uint32_t*, uint32_t*, uint32_t*, uint8_t*, const Scratch&,
                                            cudaStream_t);

}  // namespace dlp::augment

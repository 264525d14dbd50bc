// Two kernels forward and two backward: sums of parts, and then what is made of them.
//
// Bytes: forward x is read twice and y written, backward x and the gradient are read twice and the input's gradient is
// written. Between the kernels lie 16 bytes for each part and channel, at most 64 KiB. Each block of the second kernel
// adds up those of its own channels, in place of a counter for the last block of the first, which would have to be set to
// zero by a launch of its own. Nothing waits for the device, nothing depends on which block comes first.
//
// The first kernel has a block of threads for a part and a slice of 16 or 32 channels. It brings 8,192 values at a time
// into shared memory, by 16 bytes a load and the next while these are summed, and reads them there once or twice. Four
// lanes next to each other have the four chains of a block and a channel. The second has a block of 1,024 threads an SM; a
// thread has four channels, whose factors it keeps in registers, and strides along the rows.
#include "cuda/batch_norm_relu.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace dlp::batch_norm::cuda {
namespace {

constexpr int kThreads = 512;       // of the first kernel
constexpr int kWideThreads = 1024;  // of the second
constexpr int kMostBlocks = 32;     // blocks of the definition that are worked at a time
constexpr unsigned kAll = 0xffffffffu;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

// Two values rounded, as the bits of a word.
template <class Two>
__device__ __forceinline__ uint32_t word_of(const Two& two) {
  static_assert(sizeof(Two) == sizeof(uint32_t));
  uint32_t bits;
  memcpy(&bits, &two, sizeof bits);
  return bits;
}
// By __stwb, for of a plain store of uint4 the compiler makes four.
__device__ __forceinline__ void store(const float (&v)[4], float* to) {
  __stwb(reinterpret_cast<uint4*>(to), make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]),
                                                  __float_as_uint(v[3])));
}
__device__ __forceinline__ void store(const float (&v)[4], __half* to) {
  __stwb(reinterpret_cast<uint2*>(to),
         make_uint2(word_of(__floats2half2_rn(v[0], v[1])), word_of(__floats2half2_rn(v[2], v[3]))));
}
__device__ __forceinline__ void store(const float (&v)[4], __nv_bfloat16* to) {
  __stwb(reinterpret_cast<uint2*>(to),
         make_uint2(word_of(__floats2bfloat162_rn(v[0], v[1])), word_of(__floats2bfloat162_rn(v[2], v[3]))));
}

// A slice of kWidth channels of some rows in shared memory. A row's channels are turned so that four rows of eight channels
// each, which a warp reads at once, lie in different banks; four rows on, the turn is the same.
template <class Element, int kWidth>
struct Tile {
  static constexpr int kVector = 16 / sizeof(Element);
  static constexpr int kColumns = kWidth / kVector;  // loads of a row
  static constexpr int kLoads = kBlock / kVector / kThreads;  // loads of a thread
  static constexpr int kRowBytes = kWidth * static_cast<int>(sizeof(Element));
  static constexpr int kTurns = std::max(1, kChains * kRowBytes / 128);
  static __device__ __forceinline__ int at(int row, int c) {
    return row * kWidth + ((c + row * kRowBytes / 128 % kTurns * 8) & (kWidth - 1));
  }
  // rows first..first+rows-1 of x, of whose channels this slice begins at `channel`, on the way into shared memory
  static __device__ __forceinline__ void fetch(const Element* x, int64_t channels, int64_t channel, int64_t first,
                                               int rows, uint4 (&held)[kLoads]) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int v = static_cast<int>(threadIdx.x) + i * kThreads, r = v / kColumns;
      if (r < rows) {
        held[i] = *reinterpret_cast<const uint4*>(x + (first + r) * channels + channel + v % kColumns * kVector);
      }
    }
  }
  static __device__ __forceinline__ void put(const uint4 (&held)[kLoads], int rows, Element* tile) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int v = static_cast<int>(threadIdx.x) + i * kThreads, r = v / kColumns;
      if (r < rows) *reinterpret_cast<uint4*>(tile + at(r, v % kColumns * kVector)) = held[i];
    }
  }
};

// (0 + 1) + (2 + 3) of four lanes next to each other, in each of them.
__device__ __forceinline__ float total_of_chains(float of_chain) {
  const float two = of_chain + __shfl_xor_sync(kAll, of_chain, 1);
  return two + __shfl_xor_sync(kAll, two, 2);
}

// What the backward pass needs of a channel to begin with.
struct Before {
  float scale, shift, mean;
};

// Both fp32 sums of one block of the definition and one channel, by the lane of chain 0. many: rows of the block; x, g:
// this chain's first value in shared memory.
template <class Element, int kWidth, bool kBackward>
__device__ __forceinline__ void sums_of_block(const Element* x, const Element* g, int chain, int many,
                                              const Before& of, float& first, float& second) {
  constexpr int kStep = kChains * kWidth;
  const int mine = (many - chain + kChains - 1) / kChains;  // many may be less than the number of chains
  first = second = 0.0f;
  if constexpr (kBackward) {
#pragma unroll 4
    for (int i = 0; i < mine; ++i) {
      const float value = to_float(x[i * kStep]);
      float gradient = to_float(g[i * kStep]), y;
      normalise(value, of.scale, of.shift, y);
      keep_where_positive(y, gradient);
      first += gradient;
      second += gradient * (value - of.mean);
    }
    first = total_of_chains(first);
  } else {
#pragma unroll 8
    for (int i = 0; i < mine; ++i) first += to_float(x[i * kStep]);
    first = total_of_chains(first);
    const float mean = first / static_cast<float>(many);
#pragma unroll 8
    for (int i = 0; i < mine; ++i) {
      const float apart = to_float(x[i * kStep]) - mean;
      second += apart * apart;
    }
  }
  second = total_of_chains(second);
}

// sums [channels, parts]: those of each part. g, mean, variance: where kBackward.
// One block an SM is asked for with fp32, for else ptxas spills on 10.0; 0 asks for nothing, and two fit.
template <class Element, int kWidth, bool kBackward>
__global__ void __launch_bounds__(kThreads, sizeof(Element) == 4 ? 1 : 0)
    sums_of_parts(const Element* __restrict__ x, const Element* __restrict__ g, Cut cut, Layer layer,
                  const float* __restrict__ mean, const float* __restrict__ variance, Pair* __restrict__ sums) {
  using Of = Tile<Element, kWidth>;
  extern __shared__ uint4 memory[];  // kBlock values of x, and of g
  __shared__ float of_blocks[2][kMostBlocks][kWidth];
  __shared__ Pair slots[kSlots][kWidth];
  __shared__ Before before[kWidth];
  Element* tile = reinterpret_cast<Element*>(memory);
  Element* tile_g = tile + kBlock;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t channel = int64_t{blockIdx.y} * kWidth, part = blockIdx.x;
  if (kBackward && thread < kWidth) {
    const int64_t c = channel + thread;
    const Affine by = affine_of({mean[c], variance[c]}, layer.weight[c], layer.bias[c], layer.eps);
    before[thread] = {by.scale, by.shift, mean[c]};
  }
  const int of_block = static_cast<int>(cut.of_block);
  const int at_once = max(1, min(kMostBlocks, kBlock / (of_block * kWidth)));
  const int slot = thread / kWidth, slot_channel = thread % kWidth;
  Pair of_slot{0.0, 0.0};
  const int64_t begin = part * cut.of_part, end = min(begin + cut.of_part, cut.blocks);
  const auto rows_from = [&](int64_t block) {  // of the blocks that are worked together from `block` on
    const int64_t left = min(end * cut.of_block, cut.rows) - block * cut.of_block;
    return static_cast<int>(max(int64_t{0}, min(left, int64_t{at_once} * of_block)));
  };
  uint4 held[Of::kLoads], held_g[Of::kLoads];
  const auto fetch = [&](int64_t block) {
    Of::fetch(x, cut.channels, channel, block * cut.of_block, rows_from(block), held);
    if constexpr (kBackward) Of::fetch(g, cut.channels, channel, block * cut.of_block, rows_from(block), held_g);
  };
  fetch(begin);
  for (int64_t block = begin; block < end; block += at_once) {
    const int rows = rows_from(block), blocks = (rows + of_block - 1) / of_block;
    Of::put(held, rows, tile);
    if constexpr (kBackward) Of::put(held_g, rows, tile_g);
    __syncthreads();
    fetch(block + at_once);
    // a multiple of 32, so that lanes that meet are all here
    for (int q = thread; q < blocks * kWidth * kChains; q += kThreads) {
      const int chain = q % kChains, c = q / kChains % kWidth, k = q / (kChains * kWidth);
      const int many = min(of_block, rows - k * of_block), from = Of::at(k * of_block + chain, c);
      float first, second;
      sums_of_block<Element, kWidth, kBackward>(tile + from, tile_g + from, chain, many,
                                                kBackward ? before[c] : Before{}, first, second);
      if (chain == 0) of_blocks[0][k][c] = first, of_blocks[1][k][c] = second;
    }
    __syncthreads();
    if (slot < kSlots) {
      // the block of this slot that comes first among these
      for (int k = (slot - static_cast<int>((block - begin) % kSlots) + kSlots) % kSlots; k < blocks; k += kSlots) {
        const float first = of_blocks[0][k][slot_channel], second = of_blocks[1][k][slot_channel];
        const double many = min(of_block, rows - k * of_block);
        add(kBackward ? Pair{first, second} : pair_of_moments(first, second, many), of_slot);
      }
    }
  }
  if (slot < kSlots) slots[slot][slot_channel] = of_slot;
  __syncthreads();
  if (thread < kWidth) {
    Pair total[kSlots];
#pragma unroll
    for (int i = 0; i < kSlots; ++i) total[i] = slots[i][thread];
#pragma unroll
    for (int half = kSlots / 2; half > 0; half /= 2) {
#pragma unroll
      for (int i = 0; i < half; ++i) add(total[i + half], total[i]);
    }
    sums[(channel + thread) * cut.parts + part] = total[0];
  }
}

// The sum over all parts, in every lane of the warp.
__device__ __forceinline__ Pair total_of_parts(const Pair* of_channel, int64_t parts) {
  Pair total{0.0, 0.0};
  for (int64_t p = threadIdx.x % kLanes; p < parts; p += kLanes) add(of_channel[p], total);
#pragma unroll
  for (int half = kLanes / 2; half > 0; half /= 2) {
    add({__shfl_xor_sync(kAll, total.first, half), __shfl_xor_sync(kAll, total.second, half)}, total);
  }
  return total;
}
static_assert(kLanes == 32, "a lane has one of the sums over parts");

// What becomes of the sums: [channels] each, by the block of the first rows.
struct Results {
  float *first, *second;  // mean and variance, or the gradients of weight and bias
  Running running;
};

enum class Pass { kForward, kEval, kBackward };

struct Channel {
  float scale, shift, mean, of_input, constant;
};

template <Pass kPass>
__device__ __forceinline__ Channel finished(const Cut& cut, const Layer& layer, const float* mean,
                                            const float* variance, const Pair* sums, int64_t c, bool writes,
                                            const Results& results) {
  const auto rows = static_cast<double>(cut.rows);
  Moments of{};
  Pair total{};
  if constexpr (kPass != Pass::kEval) total = total_of_parts(sums + c * cut.parts, cut.parts);
  if constexpr (kPass == Pass::kForward) {
    of = moments_of(total, rows);
    if (writes) {
      const Running& running = results.running;
      results.first[c] = of.mean;
      results.second[c] = of.variance;
      running.mean[c] = moved(running.mean[c], of.mean, running.share);
      running.variance[c] = moved(running.variance[c], unbiased(of.variance, rows), running.share);
    }
  } else {
    of = {mean[c], variance[c]};
  }
  const Affine by = affine_of(of, layer.weight[c], layer.bias[c], layer.eps);
  if constexpr (kPass != Pass::kBackward) return {by.scale, by.shift, of.mean, 0.0f, 0.0f};
  const Slope slope = slope_of(total, of.variance, by.scale, rows, layer.eps);
  if (writes) results.first[c] = slope.of_weight, results.second[c] = slope.of_bias;
  return {by.scale, by.shift, of.mean, slope.of_input, slope.constant};
}

constexpr int kChannelsOfThread = 4;

// The channels of a thread in a row, by a load of 8 or 16 bytes.
template <class Element>
struct alignas(kChannelsOfThread * sizeof(Element)) Four {
  Element of[kChannelsOfThread];
};
template <class Element>
__device__ __forceinline__ Four<Element> load(const Element* from) {
  return *reinterpret_cast<const Four<Element>*>(from);
}

// `out`: y, or the gradient of x.
template <class Element, int kWidth, Pass kPass>
__global__ void __launch_bounds__(kWideThreads)
    apply(const Element* __restrict__ x, const Element* __restrict__ g, Cut cut, Layer layer,
          const float* __restrict__ mean, const float* __restrict__ variance, const Pair* __restrict__ sums,
          int64_t rows_of_block, Results results, Element* __restrict__ out) {
  constexpr int kColumns = kWidth / kChannelsOfThread, kStride = kWideThreads / kColumns;
  constexpr int kWarps = kWideThreads / 32;
  constexpr int kAhead = kPass == Pass::kBackward ? 2 : 4;  // rows of a thread whose loads are under way together
  __shared__ Channel shared[kWidth];
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t channel = int64_t{blockIdx.y} * kWidth;
  for (int c = thread / 32; c < kWidth; c += kWarps) {
    const bool writes = blockIdx.x == 0 && thread % 32 == 0;
    const Channel of = finished<kPass>(cut, layer, mean, variance, sums, channel + c, writes, results);
    if (thread % 32 == 0) shared[c] = of;
  }
  __syncthreads();
  Channel of[kChannelsOfThread];
#pragma unroll
  for (int k = 0; k < kChannelsOfThread; ++k) of[k] = shared[thread % kColumns * kChannelsOfThread + k];
  const int64_t begin = blockIdx.x * rows_of_block, end = min(begin + rows_of_block, cut.rows);
  const int64_t column = channel + thread % kColumns * kChannelsOfThread;
#pragma unroll 1
  for (int64_t first = begin + thread / kColumns; first < end; first += kAhead * kStride) {
    Four<Element> values[kAhead], gradients[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t at = (first + i * kStride) * cut.channels + column;
      if (first + i * kStride >= end) continue;
      values[i] = load(x + at);
      if constexpr (kPass == Pass::kBackward) gradients[i] = load(g + at);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i * kStride >= end) continue;
      float done[kChannelsOfThread];
#pragma unroll
      for (int k = 0; k < kChannelsOfThread; ++k) {
        const float value = to_float(values[i].of[k]);
        float& y = done[k];
        normalise(value, of[k].scale, of[k].shift, y);
        if constexpr (kPass == Pass::kBackward) {
          float gradient = to_float(gradients[i].of[k]);
          keep_where_positive(y, gradient);
          gradient_of_input(value, of[k].scale, of[k].mean, of[k].of_input, of[k].constant, gradient);
          y = gradient;
        } else {
          keep_where_positive(y, y);
        }
      }
      store(done, out + (first + i * kStride) * cut.channels + column);
    }
  }
}

// How many blocks of threads stride along the rows beside each other: one an SM in all, and none without rows.
cudaError_t blocks_along_rows(int64_t rows, int slices, int stride, int64_t* blocks) {
  int device = 0, processors = 0;
  cudaError_t status = cudaGetDevice(&device);
  if (status != cudaSuccess) return status;
  status = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  *blocks = std::max<int64_t>(1, std::min<int64_t>(processors / slices, (rows + stride - 1) / stride));
  return status;
}

struct Call {
  const Layer& layer;
  const void* gradient;
  const float *mean, *variance;
  Pair* sums;
  Results results;
  void* out;
  cudaStream_t stream;
};

template <class Element, int kWidth, Pass kPass>
cudaError_t run(const Call& call) {
  constexpr bool kBackward = kPass == Pass::kBackward;
  const Layer& layer = call.layer;
  const Cut cut = cut_of(layer.rows, layer.channels);
  const auto* x = static_cast<const Element*>(layer.x);
  const auto* g = static_cast<const Element*>(call.gradient);
  const auto slices = static_cast<unsigned>(layer.channels / kWidth);
  const float *mean = call.mean, *variance = call.variance;
  Pair* sums = call.sums;
  if constexpr (kPass != Pass::kEval) {
    constexpr int kBytes = kBlock * static_cast<int>(sizeof(Element)) * (kBackward ? 2 : 1);
    const cudaError_t status = cudaFuncSetAttribute(sums_of_parts<Element, kWidth, kBackward>,
                                                    cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    if (status != cudaSuccess) return status;
    const dim3 grid(static_cast<unsigned>(cut.parts), slices);
    sums_of_parts<Element, kWidth, kBackward><<<grid, kThreads, kBytes, call.stream>>>(x, g, cut, layer, mean, variance,
                                                                                       sums);
  }
  int64_t blocks = 0;
  const cudaError_t status = blocks_along_rows(
      cut.rows, static_cast<int>(slices), kWideThreads / (kWidth / kChannelsOfThread), &blocks);
  if (status != cudaSuccess) return status;
  const int64_t rows_of_block = (cut.rows + blocks - 1) / blocks;
  const Results results = call.results;
  auto* out = static_cast<Element*>(call.out);
  const dim3 grid(static_cast<unsigned>(blocks), slices);
  apply<Element, kWidth, kPass><<<grid, kWideThreads, 0, call.stream>>>(x, g, cut, layer, mean, variance, sums,
                                                                        rows_of_block, results, out);
  return cudaGetLastError();
}

template <Pass kPass>
cudaError_t run_any(const Call& call) {
  const bool wide = call.layer.channels % 32 == 0;
  switch (call.layer.element) {
    case ElementType::kFloat32: return wide ? run<float, 32, kPass>(call) : run<float, 16, kPass>(call);
    case ElementType::kFloat16: return wide ? run<__half, 32, kPass>(call) : run<__half, 16, kPass>(call);
    default: return wide ? run<__nv_bfloat16, 32, kPass>(call) : run<__nv_bfloat16, 16, kPass>(call);
  }
}

}  // namespace

int64_t sums_size(int64_t rows, int64_t channels) { return 2 * channels * cut_of(rows, channels).parts; }

cudaError_t forward_cuda(const Layer& layer, const Running& running, double* sums, void* y, float* mean,
                         float* variance, cudaStream_t stream) {
  return run_any<Pass::kForward>({layer, nullptr, nullptr, nullptr, reinterpret_cast<Pair*>(sums),
                                  {mean, variance, running}, y, stream});
}

cudaError_t eval_cuda(const Layer& layer, const float* mean, const float* variance, void* y, cudaStream_t stream) {
  return run_any<Pass::kEval>({layer, nullptr, mean, variance, nullptr, {}, y, stream});
}

cudaError_t backward_cuda(const void* gradient, const Layer& layer, const float* mean, const float* variance,
                          double* sums, void* out, float* of_weight, float* of_bias, cudaStream_t stream) {
  return run_any<Pass::kBackward>({layer, gradient, mean, variance, reinterpret_cast<Pair*>(sums),
                                   {of_weight, of_bias, {}}, out, stream});
}

}  // namespace dlp::batch_norm::cuda

// Trigger injection on the GPU: one thread, 16 bytes of one image; each byte is read once and written once.
//
// Bytes: a poisoned image of B bytes moves 2 B in place (only the rectangle's rows are visited, clean images are not
// listed), 2 B into uint8, 3 B into 16-bit floats, 5 B into fp32. The table is shared by all images
// and stays in L2. A blended byte takes about ten instructions, and seven more its address and its load:
// less than what an SM issues while memory moves the two bytes (docs/kernels/inject_trigger.md).
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "cuda/inject_trigger_launch.h"

namespace dlp {
namespace {

constexpr int kVector = 16;
// 32 x 32, 64 x 64, 96 x 96 and 224 x 224 pixels are 1, 4, 9 and 49 times 192 vectors: no idle lanes. Six such blocks,
// 1152 threads, fit an SM of sm_90.
constexpr int kThreads = 192;
constexpr int kMinBlocks = 6;  // at most 56 registers, without a spill
constexpr int kVectorsPerThread = 4;

// 16 bytes and 16 terms in whole registers; every index below is known when compiling.
struct alignas(16) Bytes {
  uint32_t word[kVector / 4];
  __device__ __forceinline__ uint8_t at(int i) const { return static_cast<uint8_t>(word[i / 4] >> (i % 4 * 8)); }
};
struct alignas(16) Terms {
  uint32_t word[kVector / 2];
  __device__ __forceinline__ int16_t at(int i) const { return static_cast<int16_t>(word[i / 2] >> (i % 2 * 16)); }
};

// A record in 32 bits: images are smaller than 2^31 bytes. Columns count bytes, `right` and `bottom` are past the end.
struct Trigger {
  int kind, top, bottom, left, right, terms_row;
  int16_t weight;
  const uint8_t* overlay;
  const int16_t* terms;
  __device__ __forceinline__ bool uses_overlay() const { return kind != kAdditive; }
  __device__ __forceinline__ bool uses_terms() const { return kind == kMaskedBlend || kind == kAdditive; }
};

// Keeps the first image of a kind of fault: 64 bits without a sign, so that the -1 of "none" is the largest. Seldom
// taken, hence out of line: a trap instead would end the CUDA context and with it the run.
__device__ __noinline__ void note_fault(int64_t* first, int64_t image) {
  atomicMin(reinterpret_cast<unsigned long long*>(first), static_cast<unsigned long long>(image));
}

// What the trigger holds for 16 bytes of an image; `covered` has a bit for each byte inside the rectangle.
struct Piece {
  Bytes overlay;
  Terms terms;
  uint32_t covered;
};

__device__ __forceinline__ bool aligned(const void* pointer) {
  return (reinterpret_cast<uintptr_t>(pointer) & 15) == 0;
}

__device__ __forceinline__ Piece piece_at(const Trigger& r, int pitch, int at, int count) {
  int row = at / pitch, column = at - row * pitch;
  Piece piece{};
  const int overlay_at = (row - r.top) * (r.right - r.left) + column - r.left;
  const int terms_at = (row - r.top) * r.terms_row + column - r.left;
  const bool whole = count == kVector && row >= r.top && row < r.bottom && column >= r.left &&
                     column + kVector <= r.right && (!r.uses_overlay() || aligned(r.overlay + overlay_at)) &&
                     (!r.uses_terms() || aligned(r.terms + terms_at));
  if (whole) {
    piece.covered = 0xffffu;
    if (r.uses_overlay()) piece.overlay = *reinterpret_cast<const Bytes*>(r.overlay + overlay_at);
    if (r.uses_terms()) piece.terms = *reinterpret_cast<const Terms*>(r.terms + terms_at);
    return piece;
  }
  // Edges and odd widths, byte by byte: the inner loop stays a loop, unrolled it would cost 50 registers.
#pragma unroll
  for (int w = 0; w < kVector / 2; ++w) {
#pragma unroll 1
    for (int j = 0; j < 2; ++j) {
      const int i = 2 * w + j;
      if (i < count && row >= r.top && row < r.bottom && column >= r.left && column < r.right) {
        piece.covered |= 1u << i;
        const int y = row - r.top, c = column - r.left;
        if (r.uses_overlay()) {
          piece.overlay.word[w / 2] |= uint32_t{r.overlay[y * (r.right - r.left) + c]} << (i % 4 * 8);
        }
        if (r.uses_terms()) {
          piece.terms.word[w] |= uint32_t{static_cast<uint16_t>(r.terms[y * r.terms_row + c])} << (j * 16);
        }
      }
      if (++column == pitch) {
        column = 0;
        ++row;
      }
    }
  }
  return piece;
}

// The kind is known when compiling: asked for each byte it would cost more than what it does to the byte.
template <int kKind>
__device__ __forceinline__ uint8_t triggered(uint8_t x, uint8_t t, int16_t term, int16_t weight) {
  if constexpr (kKind == kAdditive) return add_byte(x, term);
  return blend_byte(x, t, kKind == kBlend ? weight : term);
}

template <int kKind>
__device__ __forceinline__ Bytes all_triggered(const Piece& piece, int16_t weight, const Bytes& x) {
  Bytes y;
#pragma unroll
  for (int w = 0; w < kVector / 4; ++w) {
    y.word[w] = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int i = 4 * w + j;
      y.word[w] |= uint32_t{triggered<kKind>(x.at(i), piece.overlay.at(i), piece.terms.at(i), weight)} << (j * 8);
    }
  }
  return y;
}

__device__ __forceinline__ void apply(const Piece& piece, const Trigger& r, Bytes& x) {
  Bytes y;
  switch (r.kind) {
    case kPatch: y = piece.overlay; break;
    case kBlend: y = all_triggered<kBlend>(piece, r.weight, x); break;
    case kMaskedBlend: y = all_triggered<kMaskedBlend>(piece, r.weight, x); break;
    default: y = all_triggered<kAdditive>(piece, r.weight, x);
  }
  if (piece.covered == 0xffffu) {
    x = y;
    return;
  }
#pragma unroll
  for (int w = 0; w < kVector / 4; ++w) {
    uint32_t mask = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) mask |= piece.covered >> (4 * w + j) & 1u ? 0xffu << (j * 8) : 0u;
    x.word[w] = (y.word[w] & mask) | (x.word[w] & ~mask);
  }
}

// __fmul_rn and __fadd_rn are never fused: the bits are those of the CPU.
__device__ __forceinline__ float affine(uint8_t x, float scale, float shift) {
  return __fadd_rn(__fmul_rn(static_cast<float>(x), scale), shift);
}
__device__ __forceinline__ void convert(uint8_t x, float scale, float shift, float& y) { y = affine(x, scale, shift); }
__device__ __forceinline__ void convert(uint8_t x, float scale, float shift, __half& y) {
  y = __float2half_rn(affine(x, scale, shift));
}
__device__ __forceinline__ void convert(uint8_t x, float scale, float shift, __nv_bfloat16& y) {
  y = __float2bfloat16_rn(affine(x, scale, shift));
}

template <class Out>
struct alignas(16) Result {
  Out value[kVector];
};

// The trigger of an image, -1 for none; what cannot be is noted by the thread that is asked to, and counts as none.
__device__ __forceinline__ int64_t trigger_of(const InjectArgs& args, int64_t image, bool notes) {
  const int64_t number = args.which[image];
  if (number < -1 || number >= args.record_count) {
    if (notes) note_fault(args.faults, image);
    return -1;
  }
  if (number >= 0 && !record_is_valid(args.records[number], args.height, args.width, args.overlay_size,
                                      args.terms_size)) {
    if (notes) note_fault(args.faults + 1, image);
    return -1;
  }
  return number;
}

// One image, or the part of it that blockIdx.y says, by the threads of a block.
// kAligned: every image starts at 16 bytes and holds a multiple of 16, so all image accesses are whole vectors.
template <class Out, bool kInPlace, bool kAligned>
__device__ __forceinline__ void inject_image(const InjectArgs& args, int64_t image, int64_t number) {
  const int pitch = static_cast<int>(args.width * kChannels);
  const int size = static_cast<int>(args.height) * pitch;
  Trigger r{};
  if (number >= 0) {
    const TriggerRecord& record = args.records[number];
    r.kind = static_cast<int>(record.kind);
    r.top = static_cast<int>(record.top);
    r.bottom = static_cast<int>(record.top + record.height);
    r.left = static_cast<int>(record.left * kChannels);
    r.right = static_cast<int>((record.left + record.width) * kChannels);
    r.terms_row = static_cast<int>(record.terms_row);
    r.weight = static_cast<int16_t>(record.weight);
    r.overlay = args.overlay + record.overlay;
    r.terms = args.terms + record.terms;
  }
  const int begin = kInPlace ? r.top * pitch / kVector : 0;
  const int end = ((kInPlace ? r.bottom * pitch : size) - 1) / kVector + 1;
  const uint8_t* x = args.images + image * args.images_stride;
  Out* y = static_cast<Out*>(args.out) + image * args.out_stride;

  for (int vector = begin + blockIdx.y * kThreads + threadIdx.x; vector < end; vector += gridDim.y * kThreads) {
    const int at = vector * kVector;
    const int count = kAligned ? kVector : min(kVector, size - at);
    Piece piece{};
    if (number >= 0) piece = piece_at(r, pitch, at, count);
    if (kInPlace && piece.covered == 0) continue;
    Bytes bytes;
    if (kAligned) {
      bytes = *reinterpret_cast<const Bytes*>(x + at);
    } else {
#pragma unroll
      for (int w = 0; w < kVector / 4; ++w) {
        bytes.word[w] = 0;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if (4 * w + j < count) bytes.word[w] |= uint32_t{x[at + 4 * w + j]} << (j * 8);
        }
      }
    }
    if (piece.covered != 0) apply(piece, r, bytes);

    if constexpr (sizeof(Out) == 1) {  // stored as the words that they are
      if constexpr (kAligned) {
        *reinterpret_cast<Bytes*>(y + at) = bytes;
      } else {
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
          if (i < count && (!kInPlace || (piece.covered >> i & 1u))) y[at + i] = bytes.at(i);
        }
      }
    } else {
      // the three channels in the order in which they come from here on
      const int c = at % static_cast<int>(kChannels);
      const float scale[3] = {args.affine.scale[c], args.affine.scale[(c + 1) % 3], args.affine.scale[(c + 2) % 3]};
      const float shift[3] = {args.affine.shift[c], args.affine.shift[(c + 1) % 3], args.affine.shift[(c + 2) % 3]};
      Result<Out> result;
#pragma unroll
      for (int i = 0; i < kVector; ++i) convert(bytes.at(i), scale[i % 3], shift[i % 3], result.value[i]);
      if constexpr (kAligned) {
        *reinterpret_cast<Result<Out>*>(y + at) = result;
      } else {
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
          if (i < count) y[at + i] = result.value[i];
        }
      }
    }
  }
}

// Every image is written: a block (or several, for large ones) each.
template <class Out, bool kAligned>
__global__ void __launch_bounds__(kThreads, kMinBlocks) inject_dense(const InjectArgs args) {
  const int64_t image = blockIdx.x;
  inject_image<Out, false, kAligned>(args, image, trigger_of(args, image, blockIdx.y == 0 && threadIdx.x == 0));
}

// In place, where most images have no trigger: a block takes `share` images, lists those with work, and does these. A
// block an image would begin and end 45,000 blocks for nothing where 10 % of 50,000 images have a trigger.
constexpr int kMaxShare = 64;
template <bool kAligned>
__global__ void __launch_bounds__(kThreads, kMinBlocks) inject_in_place(const InjectArgs args, int share) {
  __shared__ int64_t numbers[kMaxShare];
  __shared__ int listed[kMaxShare];
  __shared__ int count;
  const int64_t first = int64_t{blockIdx.x} * share;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  const int mine = static_cast<int>(threadIdx.x);
  if (mine < share && first + mine < args.count) {
    const int64_t number = trigger_of(args, first + mine, blockIdx.y == 0);
    if (number >= 0) {
      const int at = atomicAdd(&count, 1);  // in any order: no image knows of another
      listed[at] = mine;
      numbers[at] = number;
    }
  }
  __syncthreads();
  for (int k = 0; k < count; ++k) inject_image<uint8_t, true, kAligned>(args, first + listed[k], numbers[k]);
}

constexpr int64_t kFullDevice = 2048;  // blocks that keep the largest GPUs busy

template <class Out, bool kInPlace>
cudaError_t launch(const InjectArgs& args, cudaStream_t stream) {
  const int64_t size = args.height * args.width * kChannels;
  const auto at = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); };
  const bool whole = (at(args.images) | at(args.out) | static_cast<uintptr_t>(size | args.images_stride) |
                      static_cast<uintptr_t>(args.out_stride)) % kVector == 0;
  const int64_t per_block = int64_t{kThreads} * kVectorsPerThread;
  const int64_t vectors = (size + kVector - 1) / kVector;
  dim3 grid(static_cast<unsigned>(args.count),
            static_cast<unsigned>(std::min<int64_t>((vectors + per_block - 1) / per_block, 65535)));
  if constexpr (kInPlace) {
    const int64_t share = std::min<int64_t>(std::max<int64_t>(args.count * grid.y / kFullDevice, 1), kMaxShare);
    grid.x = static_cast<unsigned>((args.count + share - 1) / share);
    if (whole) {
      inject_in_place<true><<<grid, kThreads, 0, stream>>>(args, static_cast<int>(share));
    } else {
      inject_in_place<false><<<grid, kThreads, 0, stream>>>(args, static_cast<int>(share));
    }
  } else if (whole) {
    inject_dense<Out, true><<<grid, kThreads, 0, stream>>>(args);
  } else {
    inject_dense<Out, false><<<grid, kThreads, 0, stream>>>(args);
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t inject_trigger_cuda(const InjectArgs& args, cudaStream_t stream) {
  const cudaError_t status = cudaMemsetAsync(args.faults, 0xff, 2 * sizeof(int64_t), stream);
  if (status != cudaSuccess || args.count == 0 || args.height == 0 || args.width == 0) return status;
  if (args.out == args.images) return launch<uint8_t, true>(args, stream);
  switch (args.out_type) {
    case PixelOut::kUInt8: return launch<uint8_t, false>(args, stream);
    case PixelOut::kFloat32: return launch<float, false>(args, stream);
    case PixelOut::kFloat16: return launch<__half, false>(args, stream);
    default: return launch<__nv_bfloat16, false>(args, stream);
  }
}

}  // namespace dlp

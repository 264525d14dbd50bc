// Entropy ranking on the GPU: the arithmetic of entropy_math.h in the same order as on the CPU, hence the
// same bits.
#include "cuda/entropy_rank.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "cuda/rank_device.h"
#include "entropy_math.h"

namespace dlp::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAll = 0xffffffffu;
constexpr int kShortClasses = 16;
// Counters of all groups together: 2 Mi of 4 bytes, 8 MB, which stay in the second-level cache (40 MB and
// more).
constexpr int64_t kMaxCounters = int64_t{1} << 21;
// As many as one block narrows in passing: 16 groups of 2048.
constexpr int64_t kFewCounters = int64_t{1} << 15;
constexpr float kInfinity = __builtin_huge_valf();
constexpr float kAbsent = -3.40282347e38f;  // no finite number is below; where it counts as a tie it is taken out again

__device__ float to_float(float x) { return x; }
__device__ float to_float(__half x) { return __half2float(x); }
__device__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

struct Epilogue {
  Labels labels;
  int64_t classes;
  float* entropy;
  int32_t* top;
  uint32_t* low_hist;
  uint32_t* class_hist;
};

// Adds one to `counter` for each lane of `lanes`, which all call this; where several hit one counter, the first of them
// adds for all: rows of one entropy would otherwise queue up at one address.
__device__ void count_together(unsigned lanes, uint32_t* counter) {
  const unsigned same = __match_any_sync(lanes, reinterpret_cast<unsigned long long>(counter));
  if ((threadIdx.x & 31) == __ffs(same) - 1) atomicAdd(counter, static_cast<uint32_t>(__popc(same)));
}

// Called by the lanes of `lanes`, one a row: stores the result and counts its first digit while it is in a register.
__device__ void finish_row(const Epilogue& to, unsigned lanes, int64_t row, float bits, int32_t top,
                           uint32_t* block_hist) {
  to.entropy[row] = bits;
  to.top[row] = top;
  const uint32_t key = rank_key(bits);
  if (to.low_hist != nullptr) count_together(lanes, block_hist + (key >> 21));
  if (to.class_hist == nullptr) return;
  int64_t group = top;
  const bool known = to.labels.type == LabelType::kNone || load_group(to.labels, to.classes, row, group);
  const unsigned rest = __ballot_sync(lanes, known);
  if (known) count_together(rest, to.class_hist + group * kBins + (~key >> 21));
}

// add_term of entropy_math.h, and whether x is the largest element of its row. Without a branch: ptxas would make one of
// an `if` around both sums, and load its constants again behind each.
__device__ __forceinline__ bool add_terms(float x, float top, float& s, float& u) {
  const float t = vsub(x, top), clamped = vmax(t, kFloor);
  float rounded, n;
  const float part = exp_part(clamped, lost_of(x, top, t), rounded, n);  // sets `rounded`
  const bool below = t < 0.0f;
  const float p = below && t >= kSmallest ? vscale(part, rounded) : 0.0f;
  s = vadd(s, p);
  u = vfma(clamped, p, u);
  return !below;
}

__device__ void clear_hist(uint32_t* hist) {
  for (int b = threadIdx.x; b < kBins; b += blockDim.x) hist[b] = 0;
  __syncthreads();
}
__device__ void flush_hist(const uint32_t* hist, uint32_t* to) {
  __syncthreads();
  if (to == nullptr) return;
  for (int b = threadIdx.x; b < kBins; b += blockDim.x)
    if (hist[b] != 0) atomicAdd(to + b, hist[b]);
}

// C <= 16: a thread a row, rows staged through shared memory for coalesced reads; a warp a row would leave half of its
// lanes idle. Bytes: C * b + 8 a row. Shared: 256 * 17 * 4 + 8 KiB = 25 KiB, so 8 blocks of an sm_90 SM (228 KiB) are
// resident. The odd pitch keeps the threads of a warp on different banks.
template <class T>
__global__ void __launch_bounds__(kThreads) entropy_short(const T* x, int64_t rows, int classes, int64_t stride,
                                                          Epilogue to) {
  __shared__ float stage[kThreads * (kShortClasses + 1)];
  __shared__ uint32_t hist[kBins];
  clear_hist(hist);
  const int pitch = classes | 1;
  // where this thread's first element lies, and how far the next one is: no division in the loop
  const int first_row = threadIdx.x / classes, first_column = threadIdx.x - first_row * classes;
  const int next_row = kThreads / classes, next_column = kThreads - next_row * classes;
  for (int64_t first = int64_t{blockIdx.x} * kThreads; first < rows; first += int64_t{gridDim.x} * kThreads) {
    const int here = static_cast<int>(rows - first < kThreads ? rows - first : kThreads);
    for (int r = first_row, j = first_column; r < here;) {
      stage[r * pitch + j] = to_float(x[(first + r) * stride + j]);
      r += next_row;
      j += next_column;
      if (j >= classes) j -= classes, ++r;
    }
    __syncthreads();
    const bool mine = static_cast<int>(threadIdx.x) < here;
    const unsigned lanes = __ballot_sync(kAll, mine);
    if (mine) {
      const float* row = stage + threadIdx.x * pitch;
      float v[kShortClasses];
      float peak = -kInfinity, bad = 0.0f;
#pragma unroll
      for (int j = 0; j < kShortClasses; ++j) {
        v[j] = j < classes ? row[j] : -kInfinity;
        if (j < classes) bad = vfma(v[j], 0.0f, bad);
        peak = vmax(v[j], peak);
      }
      unsigned largest = 0;  // a bit for each class that has the largest logit
      float s, u;
      tree_of_elements<kShortClasses, 1, 0>(
          classes,
          [&](int j, float& s_of, float& u_of) {
            if (add_terms(v[j], peak, s_of, u_of)) largest |= 1u << j;
          },
          s, u);
      const bool good = bad == 0.0f;
      const float bits = entropy_bits(vadd(s, static_cast<float>(__popc(largest) - 1)), u);
      finish_row(to, lanes, first + threadIdx.x, good ? bits : __int_as_float(0x7fc00000),
                 good ? __ffs(static_cast<int>(largest)) - 1 : 0, hist);
    }
    __syncthreads();
  }
  flush_hist(hist, to.low_hist);
}

// The lanes of a row, `width` of them next to each other.
__device__ __forceinline__ float lanes_max(float x, int width) {
  for (int step = width / 2; step > 0; step /= 2) x = vmax(x, __shfl_xor_sync(kAll, x, step));
  return x;
}
// Lane 0 of a row: the lower levels of the tree, l with l + half.
__device__ __forceinline__ float lanes_tree(float x, int width) {
  for (int half = width / 2; half > 0; half /= 2) x = vadd(x, __shfl_down_sync(kAll, x, half, width));
  return x;
}
__device__ __forceinline__ unsigned lanes_min(unsigned x, int width) {
  if (width == 32) return __reduce_min_sync(kAll, x);
  for (int step = width / 2; step > 0; step /= 2) x = min(x, __shfl_xor_sync(kAll, x, step));
  return x;
}
__device__ __forceinline__ unsigned lanes_sum(unsigned x, int width) {
  if (width == 32) return __reduce_add_sync(kAll, x);
  for (int step = width / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAll, x, step);
  return x;
}

// 16 < C <= 1024: kWidth (8 or 32) lanes a row, so 4 rows a warp or 1; element j is in item j / kWidth of lane
// j % kWidth, hence in partial sum (j / kWidth) % kParts of that lane, which is sum j % 32 of entropy_math.h. The upper
// levels of the tree are within a lane, the lower ones between lanes. The row stays in registers: one read.
//
// Instructions an element, counted in the machine code of sm_90: 33. A row besides: about 440 at 32 lanes, and as many
// for the four rows of 8 lanes together.
template <class T, int kWidth, int kItems>
__global__ void __launch_bounds__(kThreads) entropy_lanes(const T* x, int64_t rows, int classes, int64_t stride,
                                                          Epilogue to) {
  static_assert(kItems <= 32, "a lane's ties are the bits of a word");
  constexpr int kParts = kLanes / kWidth, kRows = 32 / kWidth;
  __shared__ uint32_t hist[kBins];
  clear_hist(hist);
  const int lane = threadIdx.x & 31, l = lane % kWidth;
  const unsigned own = (kAll >> (32 - kWidth)) << (lane - l);  // the lanes of this row
  unsigned own_items = 0;
  for (int i = 0; i < kItems; ++i)
    if (i * kWidth + l < classes) own_items |= 1u << i;
  const int64_t warp = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  for (int64_t first = warp * kRows; first < rows; first += int64_t{gridDim.x} * kWarps * kRows) {
    const int64_t row = first + lane / kWidth;
    const bool there = row < rows;  // lanes behind the last row do the first one again, and write nothing
    const T* mine = x + (there ? row : first) * stride;
    float v[kItems];
    float peak = -kInfinity, bad = 0.0f;
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const int j = i * kWidth + l;
      v[i] = i < kItems / 2 || j < classes ? to_float(mine[j]) : kAbsent;  // fewer classes have fewer items
      bad = vfma(v[i], 0.0f, bad);
      peak = vmax(v[i], peak);
    }
    peak = lanes_max(peak, kWidth);
    const bool good = (__ballot_sync(kAll, bad == 0.0f) & own) == own;
    float s[kParts] = {}, u[kParts] = {};
    unsigned largest = 0;  // a bit for each item that is the largest logit
#pragma unroll
    for (int i = 0; i < kItems; ++i)
      if (add_terms(v[i], peak, s[i % kParts], u[i % kParts])) largest |= 1u << i;
    largest &= own_items;
    unsigned place = largest == 0 ? kAll : static_cast<unsigned>((__ffs(static_cast<int>(largest)) - 1) * kWidth + l);
    place = lanes_min(place, kWidth);
    const unsigned ties = lanes_sum(static_cast<unsigned>(__popc(largest)), kWidth);
#pragma unroll
    for (int level = 1; level <= 2; ++level) {  // 4 parts at most
      const int half = kParts >> level;
#pragma unroll
      for (int p = 0; p < half; ++p) {
        s[p] = vadd(s[p], s[p + half]);
        u[p] = vadd(u[p], u[p + half]);
      }
    }
    s[0] = lanes_tree(s[0], kWidth);
    u[0] = lanes_tree(u[0], kWidth);
    const bool writes = l == 0 && there;
    const unsigned lanes = __ballot_sync(kAll, writes);
    if (writes) {
      const float bits = entropy_bits(vadd(s[0], static_cast<float>(static_cast<int>(ties) - 1)), u[0]);
      finish_row(to, lanes, row, good ? bits : __int_as_float(0x7fc00000), good ? static_cast<int32_t>(place) : 0,
                 hist);
    }
  }
  flush_hist(hist, to.low_hist);
}

// C > 1024: a block a row, a warp a piece; thread 0 adds the pieces in order. The second read of the row
// comes from the first- or second-level cache (a row of 100,000 fp32 is 400 KB; 132 of them are about the 50
// MB of an H200).
template <class T>
__global__ void __launch_bounds__(kThreads) entropy_block(const T* x, int64_t rows, int64_t classes, int64_t stride,
                                                          Epilogue to) {
  __shared__ uint32_t hist[kBins];
  __shared__ float warp_peak[kWarps], warp_s[kWarps], warp_u[kWarps];
  __shared__ unsigned block_place, block_ties, block_bad;
  clear_hist(hist);
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* mine = x + row * stride;
    if (threadIdx.x == 0) block_place = kAll, block_ties = 0, block_bad = 0;
    float peak = -kInfinity, bad = 0.0f;
    for (int64_t j = threadIdx.x; j < classes; j += kThreads) {
      const float v = to_float(mine[j]);
      bad = vfma(v, 0.0f, bad);
      peak = vmax(v, peak);
    }
    peak = lanes_max(peak, 32);
    if (lane == 0) warp_peak[warp] = peak;
    __syncthreads();
    if (bad != 0.0f) block_bad = 1;
    for (int w = 0; w < kWarps; ++w) peak = vmax(warp_peak[w], peak);
    float s_row = 0.0f, u_row = 0.0f;
    unsigned place = kAll, ties = 0;
    for (int64_t round = 0; round < classes; round += kPiece * kWarps) {
      const int64_t begin = round + warp * kPiece;
      const int64_t end = begin + kPiece < classes ? begin + kPiece : classes;
      float s = 0.0f, u = 0.0f;
      for (int64_t j = begin + lane; j < end; j += 32) {
        if (add_terms(to_float(mine[j]), peak, s, u)) {
          ++ties;
          if (place == kAll) place = static_cast<unsigned>(j);
        }
      }
      s = lanes_tree(s, 32);
      u = lanes_tree(u, 32);
      if (lane == 0) warp_s[warp] = s, warp_u[warp] = u;
      __syncthreads();
      if (threadIdx.x == 0) {
        for (int w = 0; w < kWarps; ++w) s_row = vadd(s_row, warp_s[w]), u_row = vadd(u_row, warp_u[w]);
      }
      __syncthreads();
    }
    if (place != kAll) atomicMin(&block_place, place);
    if (ties != 0) atomicAdd(&block_ties, ties);
    __syncthreads();
    if (threadIdx.x == 0) {
      const bool fine = block_bad == 0;
      const float bits = entropy_bits(vadd(s_row, static_cast<float>(static_cast<int>(block_ties) - 1)), u_row);
      finish_row(to, 1u, row, fine ? bits : __int_as_float(0x7fc00000), fine ? static_cast<int32_t>(block_place) : 0,
                 hist);
    }
    __syncthreads();
  }
  flush_hist(hist, to.low_hist);
}

// Blocks that fill the device a few times over; the kernels stride over the rest.
int blocks_for(int64_t work, int64_t per_block) {
  int device = 0, processors = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device) != cudaSuccess)
    processors = 108;
  return static_cast<int>(std::max<int64_t>(1, std::min((work + per_block - 1) / per_block, int64_t{processors} * 8)));
}

template <class T>
cudaError_t launch_entropy(const Logits& logits, const Epilogue& to, cudaStream_t stream) {
  const T* x = static_cast<const T*>(logits.data);
  const int64_t rows = logits.rows, stride = logits.row_stride;
  const int classes = static_cast<int>(logits.classes);
  if (classes <= kShortClasses) {
    entropy_short<T><<<blocks_for(rows, kThreads), kThreads, 0, stream>>>(x, rows, classes, stride, to);
  } else if (classes > kPiece) {
    entropy_block<T><<<blocks_for(rows, 1), kThreads, 0, stream>>>(x, rows, classes, stride, to);
  } else {
    const int few = blocks_for(rows, kWarps * 4), many = blocks_for(rows, kWarps);
    if (classes <= 32)
      entropy_lanes<T, 8, 4><<<few, kThreads, 0, stream>>>(x, rows, classes, stride, to);
    else if (classes <= 64)
      entropy_lanes<T, 8, 8><<<few, kThreads, 0, stream>>>(x, rows, classes, stride, to);
    else if (classes <= 128)
      entropy_lanes<T, 8, 16><<<few, kThreads, 0, stream>>>(x, rows, classes, stride, to);
    else if (classes <= 256)
      entropy_lanes<T, 32, 8><<<many, kThreads, 0, stream>>>(x, rows, classes, stride, to);
    else if (classes <= 512)
      entropy_lanes<T, 32, 16><<<many, kThreads, 0, stream>>>(x, rows, classes, stride, to);
    else
      entropy_lanes<T, 32, 32><<<many, kThreads, 0, stream>>>(x, rows, classes, stride, to);
  }
  return cudaGetLastError();
}

// Finds the bin of a group in which the wanted number is reached, and clears the counters for the next digit; called by
// a whole block. A group is settled when its whole bin is wanted; then `prefix` becomes the largest composite to take.
__device__ void narrow_group(const Plan& plan, const State& state, int64_t g, int64_t count, int pass, int shift,
                             int width) {
  __syncthreads();  // all have done with the group before
  if (pass > 0 && state.wanted[g] == 0) return;
  volatile uint32_t* hist = state.hist + g * plan.bins;  // other blocks have counted: not from this one's cache
  const int64_t each = (plan.bins + kThreads - 1) / kThreads;
  const int64_t begin = threadIdx.x * each, end = begin + each < plan.bins ? begin + each : plan.bins;
  uint32_t sum = 0, total;  // rows are below 2^31
  for (int64_t b = begin; b < end; ++b) sum += hist[b];
  const int64_t before = sum_before<kThreads>(sum, total);
  const int64_t wanted = pass > 0 ? state.wanted[g] : (count < total ? count : int64_t{total});
  __syncthreads();  // everyone has read `wanted` before one thread changes it
  if (pass == 0 && threadIdx.x == 0) {
    state.counts[g] = wanted;
    if (wanted == 0) state.wanted[g] = 0, state.prefix[g] = 0;
  }
  if (wanted > 0 && before < wanted && wanted <= before + sum) {
    int64_t left = wanted - before, bin = begin;
    while (static_cast<int64_t>(hist[bin]) < left) left -= hist[bin++];
    const bool settled = static_cast<int64_t>(hist[bin]) == left;
    const uint64_t prefix = pass > 0 ? state.prefix[g] << width | static_cast<uint64_t>(bin) : static_cast<uint64_t>(bin);
    state.prefix[g] = settled ? (prefix << shift) | ((uint64_t{1} << shift) - 1) : prefix;
    state.wanted[g] = settled ? 0 : left;
    if (pass == 0 && !settled) atomicAdd(state.progress, 1u);
    if (pass > 0 && settled) atomicSub(state.progress, 1u);
  }
  __syncthreads();
  for (int64_t b = begin; b < end; ++b) hist[b] = 0;
}

// One digit. 4 bytes (12 with int64 labels) a row; nothing at all once every group is settled. One group
// counts in shared memory, several in the second-level cache. With `narrows` the last block to finish narrows as well:
// a launch less, where the counters are few enough for one block.
__global__ void __launch_bounds__(kThreads) count_digit(Scores scores, Plan plan, State state, int64_t wanted, int pass,
                                                        int shift, int width, bool narrows) {
  if (pass > 0 && state.progress[0] == 0) return;
  __shared__ uint32_t hist[kBins];
  __shared__ bool last;
  const bool one = scores.groups == 1;
  if (one) clear_hist(hist);
  const uint64_t mask = (uint64_t{1} << width) - 1;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < scores.rows; i += int64_t{gridDim.x} * kThreads) {
    int64_t group;
    if (!load_group(scores.labels, scores.groups, i, group)) continue;
    const uint64_t c = composite_of(scores.data[i], i, scores.largest, plan.id_bits);
    if (pass > 0 && (state.wanted[group] == 0 || c >> (shift + width) != state.prefix[group])) continue;
    const int64_t digit = static_cast<int64_t>((c >> shift) & mask);
    count(one ? hist + digit : state.hist + group * plan.bins + digit);
  }
  if (one) flush_hist(hist, state.hist);
  if (!narrows) return;
  __threadfence();  // what this block has counted, before it says so
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(state.progress + 2, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  if (threadIdx.x == 0) state.progress[2] = 0;  // for the next digit
  for (int64_t g = 0; g < scores.groups; ++g) narrow_group(plan, state, g, wanted, pass, shift, width);
}

// The same for many groups, or where the first digit was counted before: a block a group.
__global__ void __launch_bounds__(kThreads) narrow(Plan plan, State state, int64_t count, int pass, int shift,
                                                   int width) {
  narrow_group(plan, state, blockIdx.x, count, pass, shift, width);
}

__global__ void __launch_bounds__(kThreads) clear_winners(State state, int64_t rows, int64_t groups) {
  const int64_t first = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (first < 2) state.faults[first] = rows;
  for (int64_t i = first; i < state.size; i += int64_t{gridDim.x} * kThreads) {
    state.composite[i] = INT64_MAX;
    state.group[i] = static_cast<int32_t>(groups);
  }
}

// Writes the winners in the order in which they arrive (a sort follows), and looks for faults on the way.
__global__ void __launch_bounds__(kThreads) emit(Scores scores, Plan plan, State state) {
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < scores.rows; i += int64_t{gridDim.x} * kThreads) {
    if (!is_finite(scores.data[i]))
      atomicMin(reinterpret_cast<unsigned long long*>(state.faults), static_cast<unsigned long long>(i));
    int64_t group;
    if (!load_group(scores.labels, scores.groups, i, group)) {
      atomicMin(reinterpret_cast<unsigned long long*>(state.faults + 1), static_cast<unsigned long long>(i));
      continue;
    }
    if (state.size == 0 || state.counts[group] == 0) continue;
    const uint64_t c = composite_of(scores.data[i], i, scores.largest, plan.id_bits);
    if (c > state.prefix[group]) continue;
    const uint32_t at = atomicAdd(state.progress + 1, 1u);
    state.composite[at] = static_cast<int64_t>(c);
    state.group[at] = static_cast<int32_t>(group);
  }
}

__global__ void __launch_bounds__(kThreads) gather(const int32_t* group, const int64_t* order, int64_t size,
                                                   int32_t* out) {
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < size; i += int64_t{gridDim.x} * kThreads)
    out[i] = group[order[i]];
}

__global__ void __launch_bounds__(kThreads) take_ids(const int64_t* sorted, const int64_t* order, int64_t size,
                                                     int id_bits, int64_t* out) {
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < size; i += int64_t{gridDim.x} * kThreads) {
    const int64_t c = sorted[order == nullptr ? i : order[i]];
    out[i] = c == INT64_MAX ? -1 : c & ((int64_t{1} << id_bits) - 1);
  }
}

}  // namespace

Plan make_plan(int64_t rows, int64_t groups) {
  Plan plan{1, 11, 0, 0};
  while ((int64_t{1} << plan.id_bits) < rows) ++plan.id_bits;
  while (plan.bits > 1 && (groups << plan.bits) > kMaxCounters) --plan.bits;
  plan.bins = int64_t{1} << plan.bits;
  plan.passes = (32 + plan.id_bits + plan.bits - 1) / plan.bits;
  return plan;
}

cudaError_t row_entropy(const Logits& logits, const Labels& labels, float* entropy, int32_t* top, uint32_t* low_hist,
                        uint32_t* class_hist, cudaStream_t stream) {
  if (logits.rows == 0) return cudaSuccess;
  const Epilogue to{labels, logits.classes, entropy, top, low_hist, class_hist};
  if (logits.element == Element::kHalf) return launch_entropy<__half>(logits, to, stream);
  if (logits.element == Element::kBfloat16) return launch_entropy<__nv_bfloat16>(logits, to, stream);
  return launch_entropy<float>(logits, to, stream);
}

cudaError_t select_rows(const Scores& scores, int64_t count, const Plan& plan, const State& state, bool first_counted,
                        cudaStream_t stream) {
  clear_winners<<<blocks_for(state.size, kThreads), kThreads, 0, stream>>>(state, scores.rows, scores.groups);
  const int total_bits = 32 + plan.id_bits, blocks = blocks_for(scores.rows, kThreads * 4);
  const bool few = scores.groups * plan.bins <= kFewCounters;
  for (int pass = 0; pass < plan.passes; ++pass) {
    const int shift = std::max(total_bits - (pass + 1) * plan.bits, 0);
    const int width = std::min(plan.bits, total_bits - pass * plan.bits);
    const bool counts = pass > 0 || !first_counted;
    if (counts) count_digit<<<blocks, kThreads, 0, stream>>>(scores, plan, state, count, pass, shift, width, few);
    if (!counts || !few)
      narrow<<<static_cast<unsigned>(scores.groups), kThreads, 0, stream>>>(plan, state, count, pass, shift, width);
  }
  emit<<<blocks, kThreads, 0, stream>>>(scores, plan, state);
  return cudaGetLastError();
}

cudaError_t gather_groups(const int32_t* group, const int64_t* order, int64_t size, int32_t* out, cudaStream_t stream) {
  gather<<<blocks_for(size, kThreads), kThreads, 0, stream>>>(group, order, size, out);
  return cudaGetLastError();
}

cudaError_t write_ids(const int64_t* sorted, const int64_t* order, int64_t size, int id_bits, int64_t* out,
                      cudaStream_t stream) {
  take_ids<<<blocks_for(size, kThreads), kThreads, 0, stream>>>(sorted, order, size, id_bits, out);
  return cudaGetLastError();
}

}  // namespace dlp::cuda

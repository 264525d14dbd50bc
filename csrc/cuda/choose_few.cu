// The lowest rows of all and the highest of each class in one launch, for row counts that a block can walk alone.
//
// A block a choice, and one that looks for faults. It narrows the composite number (key, id), which no two rows share, digit by digit until what is
// left fits into shared memory (mostly after one digit), collects that, sorts it there, and writes ids. Bytes: a walk
// over the rows a digit and one to collect, 4 bytes a row (8 or 12 with labels), from the second-level cache:
// 50,000 rows and ten classes are 2 x 11 walks of 0.4 MB. A walk waits for memory, not for arithmetic: a thread has
// 16 loads under way, so 50,000 rows are 7 rounds. Shared: 8 KiB of counters and 16 KiB of candidates.
#include "cuda/rank_device.h"

namespace dlp::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kCapacity = 2048;                     // candidates in shared memory
constexpr int64_t kMaxRows = int64_t{1} << 17;      // above, one block walks too long
constexpr int64_t kMaxWalks = int64_t{1} << 21;     // rows times classes
constexpr int kDigitBits = 11;
static_assert(kBins == 1 << kDigitBits && kBins == 2 * kThreads, "a thread adds up two counters");

// Ascending; `size` is a power of two.
__device__ void sort_shared(uint64_t* values, int size) {
  for (int run = 2; run <= size; run *= 2) {
    for (int gap = run / 2; gap > 0; gap /= 2) {
      for (int t = threadIdx.x; t < size / 2; t += kThreads) {
        const int i = 2 * t - (t & (gap - 1));
        const uint64_t a = values[i], b = values[i + gap];
        if ((a > b) == ((i & run) == 0)) values[i] = b, values[i + gap] = a;
      }
      __syncthreads();
    }
  }
}

constexpr int kAtOnce = 8;  // rows of a thread whose loads are under way together

// Calls visit(row, score, group) for each row, by the threads of the block in turn; rows without a group have -1.
template <class Visit>
__device__ __forceinline__ void walk(const Scores& scores, const Labels& labels, const Visit& visit) {
  for (int64_t base = threadIdx.x; base < scores.rows; base += kThreads * kAtOnce) {
    float score[kAtOnce];
    int64_t group[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int64_t row = base + k * kThreads;
      score[k] = row < scores.rows ? scores.data[row] : 0.0f;
      if (row >= scores.rows || !load_group(labels, scores.groups, row, group[k])) group[k] = -1;
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k)
      if (base + k * kThreads < scores.rows) visit(base + k * kThreads, score[k], group[k]);
  }
}

// The `wanted` best rows of a group, sorted, at the front of `kept`; how many there are. Called by the whole block.
__device__ uint32_t choose(const Scores& scores, const Labels& labels, int64_t group, bool largest, int id_bits,
                           uint32_t wanted, uint64_t* kept) {
  __shared__ uint32_t hist[kBins];
  __shared__ uint32_t bin, before_bin, collected;
  const int total_bits = 32 + id_bits;
  uint64_t prefix = 0, limit = 0;
  uint32_t left = wanted, sure = 0;
  for (int pass = 0;; ++pass) {
    const int shift = total_bits > (pass + 1) * kDigitBits ? total_bits - (pass + 1) * kDigitBits : 0;
    const int width = total_bits - pass * kDigitBits - shift;
    for (int b = threadIdx.x; b < kBins; b += kThreads) hist[b] = 0;
    if (threadIdx.x == 0) collected = 0;
    __syncthreads();
    walk(scores, labels, [&](int64_t row, float score, int64_t of) {
      const uint64_t c = composite_of(score, row, largest, id_bits);
      if (of == group && (pass == 0 || c >> (shift + width) == prefix))
        count(hist + (c >> shift & ((uint64_t{1} << width) - 1)));
    });
    __syncthreads();
    const uint32_t first = hist[2 * threadIdx.x], own = first + hist[2 * threadIdx.x + 1];
    uint32_t total;
    const uint32_t before = sum_before<kThreads>(own, total);
    if (pass == 0) left = wanted = min(wanted, total);
    if (wanted == 0) return 0;
    if (before < left && left <= before + own) {
      const bool second = before + first < left;
      bin = 2 * threadIdx.x + second;
      before_bin = before + (second ? first : 0);
    }
    __syncthreads();
    prefix = prefix << width | bin;
    sure += before_bin;
    left -= before_bin;
    limit = prefix << shift | ((uint64_t{1} << shift) - 1);
    const bool enough = sure + hist[bin] <= kCapacity;
    __syncthreads();  // all have read `bin` and the counters
    if (enough) break;
  }
  walk(scores, labels, [&](int64_t row, float score, int64_t of) {
    const uint64_t c = composite_of(score, row, largest, id_bits);
    if (of == group && c <= limit) kept[atomicAdd(&collected, 1u)] = c;
  });
  __syncthreads();
  int size = 1;
  while (size < static_cast<int>(collected)) size *= 2;
  for (int i = collected + threadIdx.x; i < size; i += kThreads) kept[i] = ~uint64_t{0};
  __syncthreads();
  sort_shared(kept, size);
  return wanted;
}

// The first row with a score that is not finite, and the first with a label out of range. Called by one block.
__device__ void find_faults(const FewChoices& of) {
  __shared__ unsigned long long first[2];
  if (threadIdx.x < 2) first[threadIdx.x] = static_cast<unsigned long long>(of.scores.rows);
  __syncthreads();
  const bool labelled = of.scores.labels.type != LabelType::kNone;
  walk(of.scores, of.scores.labels, [&](int64_t row, float score, int64_t group) {
    if (!is_finite(score)) atomicMin(first, static_cast<unsigned long long>(row));
    if (labelled && group < 0) atomicMin(first + 1, static_cast<unsigned long long>(row));
  });
  __syncthreads();
  if (threadIdx.x < 2) of.faults[threadIdx.x] = static_cast<int64_t>(first[threadIdx.x]);
}

// By the last block of a class: class after class without gaps, then -1.
__device__ void join_classes(const FewChoices& of, int64_t most) {
  __shared__ uint32_t start[kThreads];
  const volatile int64_t* counts = of.counts;  // of other blocks: not from this one's cache
  const volatile int64_t* staging = of.staging;
  const int classes = static_cast<int>(of.scores.groups);
  uint32_t total;
  const uint32_t own = static_cast<int>(threadIdx.x) < classes ? static_cast<uint32_t>(counts[threadIdx.x]) : 0u;
  start[threadIdx.x] = sum_before<kThreads>(own, total);
  __syncthreads();
  for (int64_t i = threadIdx.x; i < classes * most; i += kThreads) {
    const int64_t c = i / most, place = i - c * most;
    if (place < counts[c]) of.high[start[c] + place] = staging[i];
  }
  for (int64_t i = int64_t{total} + threadIdx.x; i < of.high_size; i += kThreads) of.high[i] = -1;
}

__global__ void __launch_bounds__(kThreads) choose_few_kernel(FewChoices of) {
  __shared__ uint64_t kept[kCapacity];
  __shared__ bool last;
  const uint64_t ids = (uint64_t{1} << of.id_bits) - 1;
  if (blockIdx.x == 0) {
    if (of.lowest == 0) return;
    Scores all = of.scores;
    all.groups = 1;
    choose(all, {}, 0, false, of.id_bits, static_cast<uint32_t>(of.lowest), kept);
    for (int64_t i = threadIdx.x; i < of.lowest; i += kThreads) of.low[i] = static_cast<int64_t>(kept[i] & ids);
    return;
  }
  if (blockIdx.x == gridDim.x - 1) {
    find_faults(of);
    if (of.per_class == 0)
      for (int64_t c = threadIdx.x; c < of.scores.groups; c += kThreads) of.counts[c] = 0;
    return;
  }
  const int64_t c = blockIdx.x - 1, most = min(of.per_class, of.scores.rows);
  const uint32_t found =
      choose(of.scores, of.scores.labels, c, true, of.id_bits, static_cast<uint32_t>(most), kept);
  for (uint32_t i = threadIdx.x; i < found; i += kThreads)
    of.staging[c * most + i] = static_cast<int64_t>(kept[i] & ids);
  if (threadIdx.x == 0) of.counts[c] = found;
  __threadfence();  // before the block says that it has finished
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(of.finished, 1u) == static_cast<uint32_t>(of.scores.groups) - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  join_classes(of, most);
}

}  // namespace

bool fits_few(int64_t rows, int64_t classes, int64_t lowest, int64_t per_class) {
  if (rows == 0 || rows > kMaxRows || lowest > kCapacity) return false;
  if (per_class == 0) return true;
  const int64_t most = per_class < rows ? per_class : rows;
  return most <= kCapacity && classes <= kThreads && rows * classes <= kMaxWalks;
}

cudaError_t choose_few(const FewChoices& choices, cudaStream_t stream) {
  const unsigned blocks = 2 + (choices.per_class > 0 ? static_cast<unsigned>(choices.scores.groups) : 0u);
  choose_few_kernel<<<blocks, kThreads, 0, stream>>>(choices);
  return cudaGetLastError();
}

}  // namespace dlp::cuda

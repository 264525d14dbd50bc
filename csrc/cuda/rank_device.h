// What the ranking kernels share.
#pragma once

#include "cuda/entropy_rank.h"
#include "rank_key.h"

namespace dlp::cuda {
namespace {

__device__ __forceinline__ bool load_group(const Labels& labels, int64_t groups, int64_t row, int64_t& group) {
  group = labels.type == LabelType::kNone    ? 0
          : labels.type == LabelType::kInt32 ? static_cast<const int32_t*>(labels.data)[row]
                                             : static_cast<const int64_t*>(labels.data)[row];
  return group >= 0 && group < groups;
}

// Where lanes of a warp hit one counter, one of them adds for all: equal keys would otherwise queue 32 deep.
__device__ __forceinline__ void count(uint32_t* counter) {
  const unsigned active = __activemask();
  int same;
  __match_all_sync(active, reinterpret_cast<unsigned long long>(counter), &same);
  if (!same) {
    atomicAdd(counter, 1u);
  } else if ((threadIdx.x & 31) == __ffs(active) - 1) {
    atomicAdd(counter, static_cast<uint32_t>(__popc(active)));
  }
}

// Sum of `value` over the threads before this one; `total`: over all. Called by the whole block.
template <int kThreads>
__device__ __forceinline__ uint32_t sum_before(uint32_t value, uint32_t& total) {
  constexpr int kWarps = kThreads / 32;
  constexpr unsigned kAll = 0xffffffffu;
  static_assert(kThreads % 32 == 0 && kWarps <= 32, "one warp adds up the sums of the warps");
  __shared__ uint32_t of_warp[32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  uint32_t through = value;
  for (int step = 1; step < 32; step *= 2) {
    const uint32_t earlier = __shfl_up_sync(kAll, through, step);
    if (lane >= step) through += earlier;
  }
  __syncthreads();  // whoever still reads of_warp of the call before
  if (lane == 31) of_warp[warp] = through;
  __syncthreads();
  if (warp == 0) {
    uint32_t sum = lane < kWarps ? of_warp[lane] : 0;
    for (int step = 1; step < 32; step *= 2) {
      const uint32_t earlier = __shfl_up_sync(kAll, sum, step);
      if (lane >= step) sum += earlier;
    }
    of_warp[lane] = sum;
  }
  __syncthreads();
  total = of_warp[31];
  return through - value + (warp == 0 ? 0 : of_warp[warp - 1]);
}

__device__ __forceinline__ uint64_t composite_of(float score, int64_t row, bool largest, int id_bits) {
  const uint32_t key = largest ? ~rank_key(score) : rank_key(score);
  return (static_cast<uint64_t>(key) << id_bits) | static_cast<uint64_t>(row);
}

}  // namespace
}  // namespace dlp::cuda

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

__device__ __forceinline__ uint64_t composite_of(float score, int64_t row, bool largest, int id_bits) {
  const uint32_t key = largest ? ~rank_key(score) : rank_key(score);
  return (static_cast<uint64_t>(key) << id_bits) | static_cast<uint64_t>(row);
}

}  // namespace
}  // namespace dlp::cuda

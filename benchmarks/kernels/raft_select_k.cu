// raft::matrix::select_k by its radix passes of 11 bits, for selection_peers.py; the face is that of cub_topk.cu. It brings
// its own memory: of a pool, for RMM's default allocates anew for each call.
#include <raft/core/device_mdspan.hpp>
#include <raft/core/resource/cuda_stream.hpp>
#include <raft/core/resources.hpp>
#include <raft/matrix/select_k.cuh>
#include <rmm/mr/cuda_async_memory_resource.hpp>
#include <rmm/mr/per_device_resource.hpp>

extern "C" int lowest(void* memory, size_t* bytes, const float* keys, float* chosen, int* ids, int count, int wanted,
                      cudaStream_t stream) try {
  if (memory == nullptr) return *bytes = 1, 0;
  static rmm::mr::cuda_async_memory_resource pool;
  static const bool kept = (rmm::mr::set_current_device_resource(pool), true);
  static raft::resources resources;
  raft::resource::set_cuda_stream(resources, stream);
  raft::matrix::select_k<float, int>(
      resources, raft::make_device_matrix_view<const float, int64_t>(keys, 1, count), std::nullopt,
      raft::make_device_matrix_view<float, int64_t>(chosen, 1, wanted),
      raft::make_device_matrix_view<int, int64_t>(ids, 1, wanted), true, false,
      raft::matrix::SelectAlgo::kRadix11bits);
  return kept ? 0 : -1;
} catch (...) {
  return -1;
}

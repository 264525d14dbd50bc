// cub::DeviceTopK for selection_peers.py. memory: null asks for `bytes`, the size of what it must be given.
#include <cub/device/device_topk.cuh>
#include <cuda/iterator>
#include <cuda/stream_ref>

extern "C" int lowest(void* memory, size_t* bytes, const float* keys, float* chosen, int* ids, int count, int wanted,
                      cudaStream_t stream) {
  const auto any = cuda::execution::require(cuda::execution::determinism::not_guaranteed,
                                            cuda::execution::output_ordering::unsorted);
  const auto environment = cuda::std::execution::env{cuda::stream_ref{stream}, any};
  return cub::DeviceTopK::MinPairs(memory, *bytes, keys, chosen, cuda::counting_iterator<int>{0}, ids, count, wanted,
                                   environment);
}

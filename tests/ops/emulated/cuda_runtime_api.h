// CUDA's language and runtime as far as csrc/cuda uses them, on one CPU thread: for tests of the kernels without a GPU.
//
// A thread of a block is a fiber that runs until it meets others (__syncthreads, a shuffle, a vote); which one goes on
// next is drawn, so what relies on an order, or lacks a barrier, comes to light. Blocks run one after the other in an
// order that is drawn too. Lanes that wait for lanes that never come end the process with a message.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static

using std::max;
using std::min;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

enum cudaError_t { cudaSuccess = 0 };
using cudaStream_t = void*;
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

namespace emulated {
extern int processors, shared_bytes, launches;
extern unsigned char* dynamic_shared;
void launch(dim3 grid, dim3 block, size_t dynamic_bytes, const std::function<void()>& kernel);
int lane();
// What all lanes of `mask` gave, once all have come; the calling lane must be one of them.
struct Given {
  uint64_t of[32];
};
Given meet(unsigned mask, uint64_t value);
void meet_block();
template <class T>
uint64_t packed(T value) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <class T>
T unpacked(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
}  // namespace emulated

inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr what, int) {
  *value = what == cudaDevAttrMultiProcessorCount ? emulated::processors : emulated::shared_bytes;
  return cudaSuccess;
}
template <class F>
cudaError_t cudaFuncSetAttribute(F, cudaFuncAttribute, int) {
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t) {
  ++emulated::launches;
  std::memset(to, value, size);
  return cudaSuccess;
}

inline void __syncthreads() { emulated::meet_block(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulated::meet(mask, 0); }
inline void __threadfence() {}
inline unsigned __activemask() { return 1u << emulated::lane(); }  // lanes may have parted: the fewest that are legal
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const auto given = emulated::meet(mask, predicate != 0);
  unsigned found = 0;
  for (int l = 0; l < 32; ++l)
    if (mask >> l & 1) found |= static_cast<unsigned>(given.of[l]) << l;
  return found;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
template <class T>
unsigned __match_all_sync(unsigned mask, T value, int* same) {
  const auto given = emulated::meet(mask, emulated::packed(value));
  *same = 1;
  for (int l = 0; l < 32; ++l)
    if ((mask >> l & 1) && given.of[l] != emulated::packed(value)) *same = 0;
  return *same ? mask : 0;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value) {
  const auto given = emulated::meet(mask, emulated::packed(value));
  unsigned found = 0;
  for (int l = 0; l < 32; ++l)
    if ((mask >> l & 1) && given.of[l] == emulated::packed(value)) found |= 1u << l;
  return found;
}
namespace emulated {
template <class T>
T from_lane(unsigned mask, T value, int source, bool inside) {
  const Given given = meet(mask, packed(value));
  if (!inside) return value;
  return mask >> source & 1 ? unpacked<T>(given.of[source]) : unpacked<T>(0x7fc0dead7fc0deadu);  // undefined on a GPU
}
}  // namespace emulated
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int l = emulated::lane();
  return emulated::from_lane(mask, value, l / width * width + source % width, true);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned step, int width = 32) {
  const int l = emulated::lane();
  return emulated::from_lane(mask, value, l + static_cast<int>(step), l % width + static_cast<int>(step) < width);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned step, int width = 32) {
  const int l = emulated::lane();
  return emulated::from_lane(mask, value, l - static_cast<int>(step), l % width >= static_cast<int>(step));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int step, int width = 32) {
  const int l = emulated::lane();
  return emulated::from_lane(mask, value, l ^ step, (l ^ step) / width == l / width);
}
namespace emulated {
template <class T, class F>
T reduced(unsigned mask, T value, const F& join) {
  const Given given = meet(mask, packed(value));
  bool any = false;
  T found{};
  for (int l = 0; l < 32; ++l) {
    if (!(mask >> l & 1)) continue;
    const T other = unpacked<T>(given.of[l]);
    found = any ? join(found, other) : other;
    any = true;
  }
  return found;
}
}  // namespace emulated
inline unsigned __reduce_min_sync(unsigned mask, unsigned v) {
  return emulated::reduced(mask, v, [](unsigned a, unsigned b) { return a < b ? a : b; });
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned v) {
  return emulated::reduced(mask, v, [](unsigned a, unsigned b) { return a + b; });
}

template <class T, class V>
T atomicAdd(T* to, V value) {
  const T before = *to;
  *to = static_cast<T>(before + value);
  return before;
}
template <class T, class V>
T atomicSub(T* to, V value) {
  const T before = *to;
  *to = static_cast<T>(before - value);
  return before;
}
template <class T, class V>
T atomicMin(T* to, V value) {
  const T before = *to;
  *to = before < static_cast<T>(value) ? before : static_cast<T>(value);
  return before;
}
template <class T, class V>
T atomicMax(T* to, V value) {
  const T before = *to;
  *to = before > static_cast<T>(value) ? before : static_cast<T>(value);
  return before;
}
template <class T, class V>
T atomicOr(T* to, V value) {
  const T before = *to;
  *to = before | static_cast<T>(value);
  return before;
}

template <class T>
void __stwb(T* to, T value) {
  *to = value;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline float __int_as_float(int x) { return emulated::unpacked<float>(static_cast<unsigned>(x)); }
inline unsigned __float_as_uint(float x) { return static_cast<unsigned>(emulated::packed(x)); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

// One block an image, for the residuals and for the hashes.
//
// Bytes of a residual: an image is read once (and 6 rows of 22 again), its residuals are written, and read and written
// again once their length is known; at 32 px, 12 KiB each, that second time is in L2 or L1. A block blurs a strip of
// 16 rows along the rows into shared memory (22 rows, 33 KiB at 256 px) and then along the columns.
#include "cuda/residual_scan.h"

#include <algorithm>

namespace dlp::residual_scan {
namespace {

constexpr int kStrip = 16;
constexpr int kRun = 4;  // pixels that a thread blurs along a row, from 10 bytes where each alone takes 7; windows
constexpr int kThreads = 256;
static_assert(kThreads == kLanes, "a thread is a lane of the sum of squares");

__global__ void __launch_bounds__(kThreads)
    residual_kernel(const uint8_t* __restrict__ images, const float* __restrict__ mean, int height, int width,
                    float* __restrict__ out) {
  extern __shared__ uint16_t blurred[];  // [kStrip + 2 kRadius][width * 3]
  __shared__ float sums[kLanes];
  const int lane = threadIdx.x, row = width * kChannels, size = row * height;
  const uint8_t* pixels = images + int64_t{blockIdx.x} * size;
  float* values = out + int64_t{blockIdx.x} * size;
  float sum = 0.0f;
  // a line of a strip is `runs` of one channel; where this thread's first one lies, and how far the next one is: no
  // division in the loop
  const int runs = (width + kRun - 1) / kRun * kChannels;
  const int first_line = lane / runs, first_run = lane - first_line * runs;
  const int next_line = kThreads / runs, next_run = kThreads - next_line * runs;
  for (int y0 = 0; y0 < height; y0 += kStrip) {
    const int y1 = min(y0 + kStrip, height);
    int line = first_line, run = first_run;
    while (line < y1 - y0 + 2 * kRadius) {
      const int c = run % kChannels, x0 = run / kChannels * kRun;
      const uint8_t* from = pixels + min(max(y0 + line - kRadius, 0), height - 1) * row + c;
      uint32_t near[kRun + 2 * kRadius];
#pragma unroll
      for (int k = 0; k < kRun + 2 * kRadius; ++k) {
        const int at = min(max(x0 * kChannels + (k - kRadius) * kChannels, 0), row - kChannels);
        near[k] = from[static_cast<uint32_t>(at)];
      }
      uint16_t* to = blurred + line * row + x0 * kChannels + c;
#pragma unroll
      for (int k = 0; k < kRun; ++k) {
        const uint32_t* v = near + k + kRadius;
        if (x0 + k < width) {
          to[k * kChannels] = static_cast<uint16_t>(blur(v[0], v[-1] + v[1], v[-2] + v[2], v[-3] + v[3]));
        }
      }
      line += next_line;
      run += next_run;
      if (run >= runs) run -= runs, ++line;
    }
    __syncthreads();
    // the values of this thread's lane, in their order
    const int first = y0 * row;
    for (int i = first + (lane - first % kLanes + kLanes) % kLanes; i < y1 * row; i += kLanes) {
      const uint16_t* r = blurred + (i - first) + kRadius * row;
      const uint32_t sum2 = blur(r[0], uint32_t{r[-row]} + r[row], uint32_t{r[-2 * row]} + r[2 * row],
                                 uint32_t{r[-3 * row]} + r[3 * row]);
      const float value = __fsub_rn(residual(pixels[i], sum2), mean[i]);
      values[i] = value;
      sum = __fadd_rn(sum, __fmul_rn(value, value));
    }
    __syncthreads();
  }
  sums[lane] = sum;
  __syncthreads();
  for (int half = kLanes / 2; half > 0; half /= 2) {
    if (lane < half) sums[lane] = __fadd_rn(sums[lane], sums[lane + half]);
    __syncthreads();
  }
  const float factor = sums[0] > 0.0f ? __fdiv_rn(1.0f, __fsqrt_rn(sums[0])) : 0.0f;
  for (int i = lane; i < size; i += kLanes) values[i] = __fmul_rn(values[i], factor);
}

// A thread has `kRun` windows below each other: what it takes of a row of three pixels serves three of them.
__global__ void __launch_bounds__(kThreads)
    hash_kernel(const uint8_t* __restrict__ images, int height, int width, int contrast, int64_t* __restrict__ out) {
  const int columns = width - kWindow + 1, lines = height - kWindow + 1, row = width * kChannels;
  const uint8_t* pixels = images + int64_t{blockIdx.x} * height * row;
  int64_t* hashes = out + int64_t{blockIdx.x} * lines * columns;
  int column = threadIdx.x % columns, y0 = static_cast<int>(threadIdx.x) / columns * kRun;
  const int next_column = kThreads % columns, next_y = kThreads / columns * kRun;
  while (y0 < lines) {
    constexpr int kRows = kRun + kWindow - 1;
    int low[kRows][kChannels], high[kRows][kChannels];
    uint32_t colours[kRows][kWindow];
#pragma unroll
    for (int y = 0; y < kRows; ++y) {
      // below the image the last row once more: windows with it are not written
      const uint8_t* from = pixels + static_cast<uint32_t>(min(y0 + y, height - 1) * row + column * kChannels);
#pragma unroll
      for (int x = 0; x < kWindow; ++x) {
        colours[y][x] =
            static_cast<uint32_t>(colour(from[kChannels * x], from[kChannels * x + 1], from[kChannels * x + 2]));
      }
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        const int p = from[c], q = from[kChannels + c], r = from[2 * kChannels + c];
        low[y][c] = min(min(p, q), r);
        high[y][c] = max(max(p, q), r);
      }
    }
#pragma unroll
    for (int k = 0; k < kRun; ++k) {
      if (y0 + k >= lines) break;
      uint64_t sum = 0;
#pragma unroll
      for (int i = 0; i < kWindow * kWindow; ++i) sum += colours[k + i / kWindow][i % kWindow] * factor(i);
      int spread = 0;
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        spread = max(spread, max(max(high[k][c], high[k + 1][c]), high[k + 2][c]) -
                                 min(min(low[k][c], low[k + 1][c]), low[k + 2][c]));
      }
      hashes[(y0 + k) * columns + column] = spread < contrast ? -1 : finish_hash(sum);
    }
    column += next_column;
    y0 += next_y;
    if (column >= columns) column -= columns, y0 += kRun;
  }
}

}  // namespace

cudaError_t high_pass_residual_cuda(const uint8_t* images, const float* mean, int64_t batch, int height, int width,
                                    float* out, cudaStream_t stream) {
  if (batch == 0) return cudaSuccess;
  const int rows = std::min(height, kStrip) + 2 * kRadius;
  const size_t bytes = sizeof(uint16_t) * rows * width * kChannels;
  residual_kernel<<<static_cast<unsigned>(batch), kThreads, bytes, stream>>>(images, mean, height, width, out);
  return cudaGetLastError();
}

cudaError_t window_hashes_cuda(const uint8_t* images, int64_t batch, int height, int width, int contrast,
                               int64_t* out, cudaStream_t stream) {
  if (batch == 0 || height < kWindow || width < kWindow) return cudaSuccess;
  hash_kernel<<<static_cast<unsigned>(batch), kThreads, 0, stream>>>(images, height, width, contrast, out);
  return cudaGetLastError();
}

}  // namespace dlp::residual_scan

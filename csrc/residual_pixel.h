// The arithmetic of `high_pass_residual` and `window_hashes`, one place for g++ and nvcc.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define DLP_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define DLP_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace dlp::residual_scan {

constexpr int kChannels = 3;
constexpr int kLargestSide = 256;

// A Gaussian of one pixel in whole numbers, 1 14 62 102 62 14 1, whose sum is 256: a blur along rows and columns is
// then an integer of at most 255 * 2^16 < 2^24, so fp32 holds 2^16 times the residual exactly, however it was summed.
constexpr int kRadius = 3;
constexpr int kCentre = 102, kOne = 62, kTwo = 14, kThree = 1;
constexpr int kRowScale = 256;            // sum of the weights
constexpr float kUnit = 1.0f / 65536.0f;  // of the blur along both axes

// at most 255 * 256, so 16 bits hold a blurred row
DLP_HOST_DEVICE uint32_t blur(uint32_t centre, uint32_t one, uint32_t two, uint32_t three) {
  return kCentre * centre + kOne * one + kTwo * two + kThree * three;
}

DLP_HOST_DEVICE float residual(uint32_t pixel, uint32_t blurred) {
  return static_cast<float>(static_cast<int32_t>(pixel * kRowScale * kRowScale) - static_cast<int32_t>(blurred)) *
         kUnit;
}

// Squares are summed in kLanes partial sums, value i in sum i % kLanes in the order of i; then the upper half of the
// sums is added to the lower half until one is left. Threads of a block and lanes of a register both do so.
constexpr int kLanes = 256;

// Windows of `window_hashes`: side in pixels, and how many bits of a channel are dropped.
constexpr int kWindow = 3;
constexpr int kDropped = 5;

DLP_HOST_DEVICE uint64_t colour(uint32_t red, uint32_t green, uint32_t blue) {
  return (red >> kDropped) << 6 | (green >> kDropped) << 3 | blue >> kDropped;
}

// Odd numbers of 64 random bits (hexadecimal digits of pi), one for each pixel of a window.
DLP_HOST_DEVICE uint64_t factor(int place) {
  constexpr uint64_t kFactors[kWindow * kWindow] = {
      0x243F6A8885A308D3u, 0x13198A2E03707345u, 0xA4093822299F31D1u, 0x082EFA98EC4E6C89u, 0x452821E638D01377u,
      0xBE5466CF34E90C6Du, 0xC0AC29B7C97C50DDu, 0x3F84D5B5B5470917u, 0x9216D5D98979FB1Bu};
  return kFactors[place];
}

DLP_HOST_DEVICE int64_t finish_hash(uint64_t sum) {
  sum ^= sum >> 32;
  sum *= 0xD6E8FEB86659FD93u;
  sum ^= sum >> 32;
  return static_cast<int64_t>(sum >> 1);  // never negative: -1 is a window of low contrast
}

}  // namespace dlp::residual_scan

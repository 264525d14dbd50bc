// Philox4x32-10 (Salmon et al., SC 2011): four random words from (seed, epoch, id, block), nothing
// remembered. dlp_fast/ops/philox.py draws the same words.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define DLP_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define DLP_HOST_DEVICE inline
#endif

namespace dlp {

struct Words {
  uint32_t word[4];
};

DLP_HOST_DEVICE Words philox4x32(Words counter, uint32_t key0, uint32_t key1) {
  constexpr int kRounds = 10;
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter.word[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter.word[2];
    const uint32_t high0 = static_cast<uint32_t>(product0 >> 32);
    const uint32_t high1 = static_cast<uint32_t>(product1 >> 32);
    counter = {{high1 ^ counter.word[1] ^ key0, static_cast<uint32_t>(product1),
                high0 ^ counter.word[3] ^ key1, static_cast<uint32_t>(product0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

DLP_HOST_DEVICE Words philox(uint64_t seed, uint32_t epoch, int64_t id, uint32_t block) {
  const uint64_t bits = static_cast<uint64_t>(id);
  return philox4x32({{static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32), epoch, block}},
                    static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

DLP_HOST_DEVICE bool coin(uint32_t word) { return word >> 31; }

// Uniform in [0, n), off by less than 2^-32 from 1/n.
DLP_HOST_DEVICE int below(uint32_t word, int n) {
  return static_cast<int>((uint64_t{word} * static_cast<uint32_t>(n)) >> 32);
}

}  // namespace dlp

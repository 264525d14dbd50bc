// The kernels of batch_norm_relu.h, for the instruction set that the file which includes this is compiled for.
#pragma once

#include <cstring>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "batch_norm_math.h"
#include "cpu/batch_norm_relu.h"

namespace dlp::batch_norm {
namespace {  // each file has its own

// A group of channels in one vector of the compiler's own kind: each instruction set splits it as it must, lane by lane
// the same arithmetic.
using Floats = float __attribute__((vector_size(4 * kGroup)));
using Words = uint32_t __attribute__((vector_size(4 * kGroup)));
using Halves = uint16_t __attribute__((vector_size(2 * kGroup)));

#define DLP_INLINE [[gnu::always_inline]] inline

DLP_INLINE void load(const float* from, Floats& to) { std::memcpy(&to, from, sizeof to); }
DLP_INLINE void store(const Floats& value, float* to) { std::memcpy(to, &value, sizeof value); }
DLP_INLINE void load(const uint16_t* from, Floats& to) {
#ifdef __AVX512F__  // what the compiler makes of the lines below takes three times as many instructions
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  to = reinterpret_cast<Floats>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
#else
  Halves bits;
  std::memcpy(&bits, from, sizeof bits);
  to = reinterpret_cast<Floats>(__builtin_convertvector(bits, Words) << 16);
#endif
}
DLP_INLINE void store(const Floats& value, uint16_t* to) {  // to the nearest bf16, ties to the even one; NaN stays NaN
  const Words bits = reinterpret_cast<Words>(value);
  const Words rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const Words kept = value == value ? rounded : (bits >> 16) | 0x40u;
#ifdef __AVX512F__
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(kept)));
#else
  const Halves halves = __builtin_convertvector(kept, Halves);
  std::memcpy(to, &halves, sizeof halves);
#endif
}

struct Sums {
  Floats of[kChains] = {};
};
DLP_INLINE void total(const Sums& sums, Floats& to) { to = (sums.of[0] + sums.of[1]) + (sums.of[2] + sums.of[3]); }

// Calls each(r, chain) for all rows, kChains at a time.
template <class Each>
DLP_INLINE void over_rows(int64_t rows, const Each& each) {
  int64_t r = 0;
  for (; r + kChains <= rows; r += kChains) {
#pragma GCC unroll 4
    for (int chain = 0; chain < kChains; ++chain) each(r + chain, chain);
  }
  for (int chain = 0; r < rows; ++r, ++chain) each(r, chain);
}

template <class Element>
void moments(const Element* x, int64_t rows, int64_t channels, float* sum, float* squares) {
  for (int64_t c = 0; c < channels; c += kGroup) {
    const Element* of = x + c;
    Sums sums, about;
    Floats first, second;
    over_rows(rows, [&](int64_t r, int chain) __attribute__((always_inline)) {
      Floats value;
      load(of + r * channels, value);
      sums.of[chain] += value;
    });
    total(sums, first);
    const Floats mean = first / static_cast<float>(rows);
    over_rows(rows, [&](int64_t r, int chain) __attribute__((always_inline)) {
      Floats value;
      load(of + r * channels, value);
      value -= mean;
      about.of[chain] += value * value;
    });
    total(about, second);
    store(first, sum + c);
    store(second, squares + c);
  }
}

template <class Element>
void forward(const Element* x, int64_t rows, int64_t channels, Affines by, Element* y) {
  for (int64_t c = 0; c < channels; c += kGroup) {
    Floats scale, shift;
    load(by.scale + c, scale);
    load(by.shift + c, shift);
    for (int64_t r = 0; r < rows; ++r) {
      Floats value;
      load(x + r * channels + c, value);
      normalise(value, scale, shift, value);
      keep_where_positive(value, value);
      store(value, y + r * channels + c);
    }
  }
}

template <class Element>
void gradient_sums(const Element* gradient, const Element* x, int64_t rows, int64_t channels,
                   Affines by, float* sum, float* product) {
  for (int64_t c = 0; c < channels; c += kGroup) {
    Floats scale, shift, mean, first, second;
    load(by.scale + c, scale);
    load(by.shift + c, shift);
    load(by.mean + c, mean);
    Sums sums, products;
    over_rows(rows, [&](int64_t r, int chain) __attribute__((always_inline)) {
      Floats value, g, y;
      load(x + r * channels + c, value);
      load(gradient + r * channels + c, g);
      normalise(value, scale, shift, y);
      keep_where_positive(y, g);
      sums.of[chain] += g;
      products.of[chain] += g * (value - mean);
    });
    total(sums, first);
    total(products, second);
    store(first, sum + c);
    store(second, product + c);
  }
}

template <class Element>
void backward(const Element* gradient, const Element* x, int64_t rows, int64_t channels, Affines by,
                              Slopes slopes, Element* out) {
  for (int64_t c = 0; c < channels; c += kGroup) {
    Floats scale, shift, mean, of_input, constant;
    load(by.scale + c, scale);
    load(by.shift + c, shift);
    load(by.mean + c, mean);
    load(slopes.of_input + c, of_input);
    load(slopes.constant + c, constant);
    for (int64_t r = 0; r < rows; ++r) {
      Floats value, g, y;
      load(x + r * channels + c, value);
      load(gradient + r * channels + c, g);
      normalise(value, scale, shift, y);
      keep_where_positive(y, g);
      gradient_of_input(value, scale, mean, of_input, constant, g);
      store(g, out + r * channels + c);
    }
  }
}

template <class Element>
constexpr Rows<Element> kRows{moments<Element>, forward<Element>, gradient_sums<Element>, backward<Element>};

}  // namespace
}  // namespace dlp::batch_norm

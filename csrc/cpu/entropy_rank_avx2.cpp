// Entropy ranking in AVX2, FMA and F16C: 8 lanes.
#include <immintrin.h>

#include "cpu/element.h"
#include "cpu/entropy_rank.h"
#include "entropy_math.h"

namespace dlp {
namespace {

struct Lanes8 {
  static constexpr int kWidth = 8;
  __m256 v;
  static Lanes8 load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Lanes8 load(const cpu::Half* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  static Lanes8 load(const cpu::Bfloat16* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
  }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
};

inline Lanes8 vadd(Lanes8 a, Lanes8 b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Lanes8 vsub(Lanes8 a, Lanes8 b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Lanes8 vmul(Lanes8 a, Lanes8 b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Lanes8 vdiv(Lanes8 a, Lanes8 b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Lanes8 vfma(Lanes8 a, Lanes8 b, Lanes8 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Lanes8 vmax(Lanes8 a, Lanes8 b) { return {_mm256_max_ps(a.v, b.v)}; }
template <>
inline Lanes8 vset<Lanes8>(float x) {
  return {_mm256_set1_ps(x)};
}
inline Lanes8 vscale(Lanes8 p, Lanes8 rounded) {
  const __m256i n = _mm256_slli_epi32(_mm256_castps_si256(rounded.v), 23);
  return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.v), n))};
}
inline Lanes8 vterm(Lanes8 p, Lanes8 t) {
  const __m256 below = _mm256_cmp_ps(t.v, _mm256_setzero_ps(), _CMP_LT_OQ);
  const __m256 above = _mm256_cmp_ps(t.v, _mm256_set1_ps(kSmallest), _CMP_GE_OQ);
  return {_mm256_and_ps(p.v, _mm256_and_ps(below, above))};
}
inline void vexponent(Lanes8 f, Lanes8& k, Lanes8& m) {
  const __m256i bits = _mm256_castps_si256(f.v);
  const __m256i e = _mm256_srai_epi32(_mm256_sub_epi32(bits, _mm256_set1_epi32(0x3f3504f3)), 23);
  k.v = _mm256_cvtepi32_ps(e);
  m.v = _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(e, 23)));
}
inline Lanes8 vwhere_zero(Lanes8 k, Lanes8 yes, Lanes8 no) {
  return {_mm256_blendv_ps(no.v, yes.v, _mm256_cmp_ps(k.v, _mm256_setzero_ps(), _CMP_EQ_OQ))};
}
inline Lanes8 vwhere_less(Lanes8 a, Lanes8 b, Lanes8 yes, Lanes8 no) {
  return {_mm256_blendv_ps(no.v, yes.v, _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ))};
}
inline uint32_t vequal_mask(Lanes8 a, Lanes8 b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)));
}
inline uint32_t vless_equal_mask(Lanes8 a, Lanes8 b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)));
}
inline float vtree(Lanes8 a) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float vlargest(Lanes8 a) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
inline Lanes8 vcount_equal(Lanes8 n, Lanes8 a, Lanes8 b) {
  return {_mm256_add_ps(n.v, _mm256_and_ps(_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ), _mm256_set1_ps(1.0f)))};
}

// Transposes 8 vectors: by pairs, by fours, then the halves of the vectors.
inline void transpose(const __m256* a, Lanes8* out) {
  __m256 b[8], c[8];
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {  // c[i + j]: rows i to i + 3 of the columns j and 4 + j
    c[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
    c[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
    c[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    c[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
  for (int j = 0; j < 4; ++j) {
    out[j].v = _mm256_permute2f128_ps(c[j], c[4 + j], 0x20);
    out[4 + j].v = _mm256_permute2f128_ps(c[j], c[4 + j], 0x31);
  }
}

// What is behind a row is not read: a masked load gives zeros there.
inline void vcolumns(const float* x, int64_t stride, int64_t rows, int64_t classes, Lanes8* column) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  for (int64_t from = 0; from < classes; from += 8) {
    const __m256i keep = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(classes - from)), lane);
    __m256 a[8];
    for (int r = 0; r < 8; ++r) a[r] = _mm256_maskload_ps(x + (r < rows ? r : 0) * stride + from, keep);
    transpose(a, column + from);
  }
}

}  // namespace
}  // namespace dlp

#include "cpu/entropy_rank_kernels.h"

namespace dlp::cpu {

const RankKernels* rank_kernels_avx2() {
  static constexpr RankKernels kKernels = make_kernels<Lanes8>("avx2");
  return &kKernels;
}

}  // namespace dlp::cpu

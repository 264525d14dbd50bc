// Entropy ranking in AVX-512 (F, BW, DQ, VL): 16 lanes.
#include <immintrin.h>

#include "cpu/element.h"
#include "cpu/entropy_rank.h"
#include "entropy_math.h"

namespace dlp {
namespace {

struct Lanes16 {
  static constexpr int kWidth = 16;
  __m512 v;
  static Lanes16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Lanes16 load(const cpu::Half* p) { return of_half(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static Lanes16 load(const cpu::Bfloat16* p) {
    return of_bfloat16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Lanes16 of_half(__m256i x) { return {_mm512_cvtph_ps(x)}; }
  static Lanes16 of_bfloat16(__m256i x) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16))};
  }
  // Lanes of `keep` from p (no other is read), the others as in `fill`.
  static Lanes16 load(const float* p, __mmask16 keep, Lanes16 fill) { return {_mm512_mask_loadu_ps(fill.v, keep, p)}; }
  static Lanes16 load(const cpu::Half* p, __mmask16 keep, Lanes16 fill) {
    return {_mm512_mask_mov_ps(fill.v, keep, of_half(_mm256_maskz_loadu_epi16(keep, p)).v)};
  }
  static Lanes16 load(const cpu::Bfloat16* p, __mmask16 keep, Lanes16 fill) {
    return {_mm512_mask_mov_ps(fill.v, keep, of_bfloat16(_mm256_maskz_loadu_epi16(keep, p)).v)};
  }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
};

inline Lanes16 vadd(Lanes16 a, Lanes16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Lanes16 vsub(Lanes16 a, Lanes16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Lanes16 vmul(Lanes16 a, Lanes16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Lanes16 vdiv(Lanes16 a, Lanes16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Lanes16 vfma(Lanes16 a, Lanes16 b, Lanes16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Lanes16 vmax(Lanes16 a, Lanes16 b) { return {_mm512_max_ps(a.v, b.v)}; }
template <>
inline Lanes16 vset<Lanes16>(float x) {
  return {_mm512_set1_ps(x)};
}
inline Lanes16 vscale(Lanes16 p, Lanes16 rounded) {
  const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(rounded.v), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p.v), n))};
}
inline Lanes16 vterm(Lanes16 p, Lanes16 t) {
  const __mmask16 below = _mm512_cmp_ps_mask(t.v, _mm512_setzero_ps(), _CMP_LT_OQ);
  const __mmask16 keep = _mm512_mask_cmp_ps_mask(below, t.v, _mm512_set1_ps(kSmallest), _CMP_GE_OQ);
  return {_mm512_maskz_mov_ps(keep, p.v)};
}
inline void vexponent(Lanes16 f, Lanes16& k, Lanes16& m) {
  const __m512i bits = _mm512_castps_si512(f.v);
  const __m512i e = _mm512_srai_epi32(_mm512_sub_epi32(bits, _mm512_set1_epi32(0x3f3504f3)), 23);
  k.v = _mm512_cvtepi32_ps(e);
  m.v = _mm512_castsi512_ps(_mm512_sub_epi32(bits, _mm512_slli_epi32(e, 23)));
}
inline Lanes16 vwhere_zero(Lanes16 k, Lanes16 yes, Lanes16 no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(k.v, _mm512_setzero_ps(), _CMP_EQ_OQ), no.v, yes.v)};
}
inline Lanes16 vwhere_less(Lanes16 a, Lanes16 b, Lanes16 yes, Lanes16 no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}
inline uint32_t vequal_mask(Lanes16 a, Lanes16 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ); }
inline uint32_t vless_equal_mask(Lanes16 a, Lanes16 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ); }

inline __mmask16 first_lanes(int64_t count) { return static_cast<__mmask16>((uint32_t{1} << count) - 1); }
template <class T>
inline Lanes16 vload_part(const T* x, int64_t count, Lanes16 fill) {
  return Lanes16::load(x, first_lanes(count), fill);
}
inline float vtree(Lanes16 a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float vlargest(Lanes16 a) { return _mm512_reduce_max_ps(a.v); }
// Masks in place of the clamp and of zeroed terms: what is left out adds nothing either way. Factors of 2^n by one
// instruction; terms of the kept lanes are normal numbers, so it is exact.
inline uint32_t vadd_terms(Lanes16 x, Lanes16 top, Lanes16& s, Lanes16& u) {
  const Lanes16 t = vsub(x, top);
  Lanes16 rounded, n;
  const Lanes16 part = exp_part(t, lost_of(x, top, t), rounded, n);
  const __m512 p = _mm512_scalef_ps(part.v, n.v);
  const __mmask16 below = _mm512_cmp_ps_mask(t.v, _mm512_setzero_ps(), _CMP_LT_OQ);
  const __mmask16 keep = _mm512_mask_cmp_ps_mask(below, t.v, _mm512_set1_ps(kSmallest), _CMP_GE_OQ);
  s.v = _mm512_mask_add_ps(s.v, keep, s.v, p);
  u.v = _mm512_mask3_fmadd_ps(t.v, p, u.v, keep);
  return static_cast<uint16_t>(~below);  // no element is above the largest
}
inline Lanes16 vcount_equal(Lanes16 n, Lanes16 a, Lanes16 b) {
  return {_mm512_mask_add_ps(n.v, _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ), n.v, _mm512_set1_ps(1.0f))};
}

// Transposes 16 vectors: by pairs, by fours, then the quarters of the vectors.
inline void transpose(__m512* a, Lanes16* out) {
  __m512 b[16];
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
  }
  const auto low = [](__m512 x, __m512 y) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
  };
  const auto high = [](__m512 x, __m512 y) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
  };
  for (int i = 0; i < 16; i += 4) {  // a[i + c]: rows i to i + 3 of the columns c, 4 + c, 8 + c, 12 + c
    a[i] = low(b[i], b[i + 2]);
    a[i + 1] = high(b[i], b[i + 2]);
    a[i + 2] = low(b[i + 1], b[i + 3]);
    a[i + 3] = high(b[i + 1], b[i + 3]);
  }
  for (int c = 0; c < 4; ++c) {
    const __m512 lower = _mm512_shuffle_f32x4(a[c], a[4 + c], 0x44), lower2 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0x44);
    const __m512 upper = _mm512_shuffle_f32x4(a[c], a[4 + c], 0xee), upper2 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0xee);
    out[c].v = _mm512_shuffle_f32x4(lower, lower2, 0x88);
    out[4 + c].v = _mm512_shuffle_f32x4(lower, lower2, 0xdd);
    out[8 + c].v = _mm512_shuffle_f32x4(upper, upper2, 0x88);
    out[12 + c].v = _mm512_shuffle_f32x4(upper, upper2, 0xdd);
  }
}

template <class T>
inline void vcolumns(const T* x, int64_t stride, int64_t rows, int64_t classes, Lanes16* column) {
  for (int64_t from = 0; from < classes; from += 16) {
    const __mmask16 keep = first_lanes(classes - from < 16 ? classes - from : 16);
    __m512 a[16];
    for (int r = 0; r < 16; ++r)
      a[r] = Lanes16::load(x + (r < rows ? r : 0) * stride + from, keep, vset<Lanes16>(0.0f)).v;
    transpose(a, column + from);
  }
}

}  // namespace
}  // namespace dlp

#include "cpu/entropy_rank_kernels.h"

namespace dlp::cpu {

const RankKernels* rank_kernels_avx512() {
  static constexpr RankKernels kKernels = make_kernels<Lanes16>("avx512");
  return &kKernels;
}

}  // namespace dlp::cpu

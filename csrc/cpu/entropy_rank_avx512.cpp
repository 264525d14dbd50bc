// Entropy ranking in AVX-512 (F, BW, DQ, VL): 16 lanes.
#include <immintrin.h>

#include <type_traits>

#include "cpu/entropy_rank.h"
#include "entropy_math.h"

namespace dlp {
namespace {

struct Lanes16 {
  static constexpr int kWidth = 16;
  __m512 v;
  static Lanes16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
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

}  // namespace
}  // namespace dlp

#include "cpu/entropy_rank_kernels.h"

namespace dlp::cpu {

namespace {
template <class T>
void vwiden(const T* from, int64_t count, float* to) {
  int64_t j = 0;
  if constexpr (std::is_same_v<T, Half>) {
    for (; j + 16 <= count; j += 16)
      _mm512_storeu_ps(to + j, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + j))));
  }
  for (; j < count; ++j) to[j] = to_float(from[j]);
}
}  // namespace

const RankKernels* rank_kernels_avx512() {
  static constexpr RankKernels kKernels = make_kernels<Lanes16>("avx512");
  return &kKernels;
}

}  // namespace dlp::cpu

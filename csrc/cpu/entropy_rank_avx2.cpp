// Entropy ranking in AVX2, FMA and F16C: 8 lanes.
#include <immintrin.h>

#include <type_traits>

#include "cpu/entropy_rank.h"
#include "entropy_math.h"

namespace dlp {
namespace {

struct Lanes8 {
  static constexpr int kWidth = 8;
  __m256 v;
  static Lanes8 load(const float* p) { return {_mm256_loadu_ps(p)}; }
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

}  // namespace
}  // namespace dlp

#include "cpu/entropy_rank_kernels.h"

namespace dlp::cpu {

namespace {
template <class T>
void vwiden(const T* from, int64_t count, float* to) {
  int64_t j = 0;
  if constexpr (std::is_same_v<T, Half>) {
    for (; j + 8 <= count; j += 8)
      _mm256_storeu_ps(to + j, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + j))));
  }
  for (; j < count; ++j) to[j] = to_float(from[j]);
}
}  // namespace

const RankKernels* rank_kernels_avx2() {
  static constexpr RankKernels kKernels = make_kernels<Lanes8>("avx2");
  return &kKernels;
}

}  // namespace dlp::cpu

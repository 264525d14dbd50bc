// Entropy of a softmax row in the tail-exact form, once for scalars (g++ and nvcc) and for SIMD lanes.
//
// With t_j = x_j - max x (natural units), s = sum over all but one maximum of e^t, u = sum of t e^t (<= 0):
//   H = log1p(s) - u / (1 + s)      [nats],   bits = H * log2(e).
// Every term is >= 0, so nothing cancels: the error is a few ulp of H itself, however saturated the row is.
//
// The order of the sum is part of the definition, so that every SIMD level, any number of threads and the GPU
// give the same bits: a row is cut into pieces of kPiece elements, element j of a piece goes to partial sum
// j mod kLanes, the partial sums are added as a tree (l with l + 16, then + 8, 4, 2, 1), pieces in order.
// Fused multiply-adds are written out; contraction by the compiler is off.
//
// Internal linkage on purpose: each translation unit compiles this with its own instruction set, and the
// linker must not swap one version for another.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define DLP_HD __host__ __device__ __forceinline__
#else
#define DLP_HD inline
#endif

namespace dlp {
namespace {

constexpr int kLanes = 32;
constexpr int64_t kPiece = 1024;
constexpr float kLog2e = 1.44269504088896341f;
// Terms below e^-86.5 (2^-124.8) count as zero: the next step would leave the normal range of fp32.
constexpr float kFloor = -87.0f;
constexpr float kSmallest = -86.5f;
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer kept in the low bits

DLP_HD uint32_t float_bits(float x) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(x);
#else
  uint32_t b;
  std::memcpy(&b, &x, 4);
  return b;
#endif
}
DLP_HD float bits_float(uint32_t b) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(b);
#else
  float x;
  std::memcpy(&x, &b, 4);
  return x;
#endif
}

// The scalar lane. A SIMD lane type offers the same functions, found by its namespace.
#if defined(__CUDA_ARCH__)
DLP_HD float vadd(float a, float b) { return __fadd_rn(a, b); }
DLP_HD float vsub(float a, float b) { return __fsub_rn(a, b); }
DLP_HD float vmul(float a, float b) { return __fmul_rn(a, b); }
DLP_HD float vdiv(float a, float b) { return __fdiv_rn(a, b); }
DLP_HD float vfma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
#else
DLP_HD float vadd(float a, float b) { return a + b; }
DLP_HD float vsub(float a, float b) { return a - b; }
DLP_HD float vmul(float a, float b) { return a * b; }
DLP_HD float vdiv(float a, float b) { return a / b; }
DLP_HD float vfma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#endif
#if defined(__CUDA_ARCH__)
DLP_HD float vmax(float a, float b) { return fmaxf(a, b); }  // one instruction; a zero's sign changes no result
#else
DLP_HD float vmax(float a, float b) { return a > b ? a : b; }
#endif
// p * 2^n, n in the low bits of `rounded`
DLP_HD float vscale(float p, float rounded) { return bits_float(float_bits(p) + (float_bits(rounded) << 23)); }
// p where kSmallest <= t < 0, else +0 (also where t is NaN)
DLP_HD float vterm(float p, float t) { return t < 0.0f && t >= kSmallest ? p : 0.0f; }
// f = m * 2^k, m in [sqrt(1/2), sqrt(2))
DLP_HD void vexponent(float f, float& k, float& m) {
  const int32_t e = static_cast<int32_t>(float_bits(f) - 0x3f3504f3u) >> 23;
  k = static_cast<float>(e);
  m = bits_float(float_bits(f) - (static_cast<uint32_t>(e) << 23));
}
DLP_HD float vwhere_zero(float k, float yes, float no) { return k == 0.0f ? yes : no; }
template <class V>
DLP_HD V vset(float x);
template <>
DLP_HD float vset<float>(float x) {
  return x;
}

// e^(t + lost) / 2^n; n is an integer and comes twice: as it is, and in the low bits of `rounded`.
template <class V>
DLP_HD V exp_part(V t, V lost, V& rounded, V& n) {
  rounded = vfma(t, vset<V>(kLog2e), vset<V>(kRound));
  n = vsub(rounded, vset<V>(kRound));
  V r = vfma(n, vset<V>(-0.693145751953125f), t);  // ln 2 in two parts, the first of 17 bits
  r = vfma(n, vset<V>(-1.42860677e-06f), r);
  r = vadd(r, lost);
  V p = vset<V>(0.0013843607f);  // minimax on |r| <= ln(2)/2, relative error 2e-9
  p = vfma(p, r, vset<V>(0.008374196f));
  p = vfma(p, r, vset<V>(0.041668005f));
  p = vfma(p, r, vset<V>(0.1666643f));
  p = vfma(p, r, vset<V>(0.49999994f));
  p = vfma(p, r, vset<V>(1.0f));
  return vfma(p, r, vset<V>(1.0f));
}

// What rounding took from t = x - top (Fast2Sum; exact where |top| >= |x|, harmless elsewhere): at 30 nats it is 1e-6
// of e^t.
template <class V>
DLP_HD V lost_of(V x, V top, V t) {
  return vsub(x, vadd(t, top));
}

// Adds e^(x - top) to s and (x - top) e^(x - top) to u; elements equal to `top` add nothing (they are
// counted).
template <class V>
DLP_HD void add_term(V x, V top, V& s, V& u) {
  const V t = vsub(x, top);
  const V clamped = vmax(t, vset<V>(kFloor));
  V rounded, n;
  V p = exp_part(clamped, lost_of(x, top, t), rounded, n);
  p = vterm(vscale(p, rounded), t);
  s = vadd(s, p);
  u = vfma(clamped, p, u);
}

// The tree of a row of at most kEnd (a power of two) elements, each a partial sum of its own: what it has at partial sum
// kAt once those kStep and more away are added to it. `leaf(index, s, u)` adds one element's terms; an index is known
// when compiling, so that all stays in registers. Elements that are absent are left out, which is as good as zero.
template <int kEnd, int kStep, int kAt, class V, class Leaf>
DLP_HD void tree_of_elements(int count, const Leaf& leaf, V& s, V& u) {
  if constexpr (kStep == kEnd) {
    s = u = vset<V>(0.0f);
    leaf(kAt, s, u);
  } else {
    tree_of_elements<kEnd, kStep * 2, kAt>(count, leaf, s, u);
    if (kAt + kStep >= count) return;
    V other_s, other_u;
    tree_of_elements<kEnd, kStep * 2, kAt + kStep>(count, leaf, other_s, other_u);
    s = vadd(s, other_s);
    u = vadd(u, other_u);
  }
}

// Bits of entropy from the two sums; log1p by atanh: ln(f) = k ln 2 + 2 atanh((m - 1) / (m + 1)), and for k =
// 0 the numerator is s itself, so small s keep all their digits.
template <class V>
DLP_HD V entropy_bits(V s, V u) {
  const V one = vset<V>(1.0f);
  const V f = vadd(one, s);
  V k, m;
  vexponent(f, k, m);
  const V top = vwhere_zero(k, s, vsub(m, one));
  const V w = vdiv(top, vadd(top, vset<V>(2.0f)));
  const V w2 = vmul(w, w);
  V q = vset<V>(0.2958674f);
  q = vfma(q, w2, vset<V>(0.39988622f));
  q = vfma(q, w2, vset<V>(0.66666687f));
  V log1p = vfma(vmul(w, w2), q, vadd(w, w));
  log1p = vfma(k, vset<V>(0.69314718f), log1p);
  return vmul(vsub(log1p, vdiv(u, f)), vset<V>(kLog2e));
}

}  // namespace
}  // namespace dlp

// Entropy ranking without SIMD intrinsics, and the choice of the instruction set.
#include "cpu/entropy_rank.h"

#include <cstdlib>
#include <cstring>

#include "cpu/element.h"
#include "entropy_math.h"

namespace dlp {
namespace {

// Eight floats that the compiler may put into whatever registers there are.
struct Lanes {
  static constexpr int kWidth = 8;
  float v[kWidth];
  template <class T>
  static Lanes load(const T* p) {
    Lanes a;
    for (int l = 0; l < kWidth; ++l) a.v[l] = cpu::to_float(p[l]);
    return a;
  }
  void store(float* p) const { std::memcpy(p, v, sizeof v); }
};

template <class F>
inline Lanes each(const F& f) {
  Lanes out;
  for (int l = 0; l < Lanes::kWidth; ++l) out.v[l] = f(l);
  return out;
}
inline Lanes vadd(const Lanes& a, const Lanes& b) { return each([&](int l) { return a.v[l] + b.v[l]; }); }
inline Lanes vsub(const Lanes& a, const Lanes& b) { return each([&](int l) { return a.v[l] - b.v[l]; }); }
inline Lanes vmul(const Lanes& a, const Lanes& b) { return each([&](int l) { return a.v[l] * b.v[l]; }); }
inline Lanes vdiv(const Lanes& a, const Lanes& b) { return each([&](int l) { return a.v[l] / b.v[l]; }); }
inline Lanes vfma(const Lanes& a, const Lanes& b, const Lanes& c) {
  return each([&](int l) { return vfma(a.v[l], b.v[l], c.v[l]); });
}
inline Lanes vmax(const Lanes& a, const Lanes& b) { return each([&](int l) { return vmax(a.v[l], b.v[l]); }); }
template <>
inline Lanes vset<Lanes>(float x) {
  return each([&](int) { return x; });
}
inline Lanes vscale(const Lanes& p, const Lanes& rounded) {
  return each([&](int l) { return vscale(p.v[l], rounded.v[l]); });
}
inline Lanes vterm(const Lanes& p, const Lanes& t) { return each([&](int l) { return vterm(p.v[l], t.v[l]); }); }
inline void vexponent(const Lanes& f, Lanes& k, Lanes& m) {
  for (int l = 0; l < Lanes::kWidth; ++l) vexponent(f.v[l], k.v[l], m.v[l]);
}
inline Lanes vwhere_zero(const Lanes& k, const Lanes& yes, const Lanes& no) {
  return each([&](int l) { return vwhere_zero(k.v[l], yes.v[l], no.v[l]); });
}
inline Lanes vwhere_less(const Lanes& a, const Lanes& b, const Lanes& yes, const Lanes& no) {
  return each([&](int l) { return a.v[l] < b.v[l] ? yes.v[l] : no.v[l]; });
}
inline uint32_t vequal_mask(const Lanes& a, const Lanes& b) {
  uint32_t mask = 0;
  for (int l = 0; l < Lanes::kWidth; ++l) mask |= static_cast<uint32_t>(a.v[l] == b.v[l]) << l;
  return mask;
}

}  // namespace
}  // namespace dlp

#include "cpu/entropy_rank_kernels.h"

namespace dlp::cpu {

namespace {
// DLP_FAST_SIMD=baseline|avx2|avx512 lowers the level: for tests and for comparing.
const RankKernels& choose() {
  static constexpr RankKernels kBaseline = make_kernels<Lanes>("baseline");
#if defined(__x86_64__)
  const char* wanted = std::getenv("DLP_FAST_SIMD");
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (wanted != nullptr && std::strcmp(wanted, "baseline") == 0) return kBaseline;
  if (avx512 && (wanted == nullptr || std::strcmp(wanted, "avx2") != 0)) return *rank_kernels_avx512();
  if (avx2) return *rank_kernels_avx2();
#endif
  return kBaseline;
}
}  // namespace

const RankKernels& rank_kernels() {
  static const RankKernels& kChosen = choose();
  return kChosen;
}

}  // namespace dlp::cpu

// Build facts by pybind11. This file sees no torch header: torch's C++ ABI must not leak in here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

namespace py = pybind11;

namespace {

// What this processor offers of what the kernels know; they choose at run time by the same test.
std::vector<std::string> simd_levels() {
  std::vector<std::string> levels{"baseline"};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) levels.emplace_back("avx2");
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    levels.emplace_back("avx512");
#endif
  return levels;
}

py::dict build_facts() {
  py::dict facts;
  facts["compiler"] = DLP_COMPILER;
  facts["sanitized"] = static_cast<bool>(DLP_SANITIZED);
#ifdef DLP_WITH_CUDA
  facts["cuda"] = DLP_CUDA_VERSION;
  facts["cuda_architectures"] = DLP_CUDA_ARCHS;
#else
  facts["cuda"] = py::none();
  facts["cuda_architectures"] = "";
#endif
  facts["simd"] = simd_levels();
  return facts;
}

}  // namespace

PYBIND11_MODULE(_build_facts, m) {
  m.doc() = "Facts about the native build of dlp_fast.";
  m.def("build_facts", &build_facts, "Compiler, CUDA version, architectures and the SIMD levels of this processor.");
}

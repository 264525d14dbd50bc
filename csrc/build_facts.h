// Facts about this build as JSON, for the op and for the pybind11 module; no torch header: its ABI must not leak in here.
#pragma once

#include <string>

namespace dlp {

// What this processor offers of what the kernels know; they choose at run time by the same test.
inline std::string simd_levels() {
  std::string levels = "\"baseline\"";
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) levels += ", \"avx2\"";
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    levels += ", \"avx512\"";
#endif
  return levels;
}

inline std::string build_facts() {
#ifdef DLP_CUDA_VERSION
  const std::string cuda = "\"" DLP_CUDA_VERSION "\"", architectures = DLP_CUDA_ARCHS;
#else
  const std::string cuda = "null", architectures;
#endif
  const std::string sanitized = DLP_SANITIZED ? "true" : "false";
  return "{\"compiler\": \"" DLP_COMPILER "\", \"sanitized\": " + sanitized + ", \"cuda\": " + cuda +
         ", \"cuda_architectures\": \"" + architectures + "\", \"simd\": [" + simd_levels() + "]}";
}

}  // namespace dlp

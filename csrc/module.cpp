// The build facts by pybind11, for a tree that is worked in: also where the ops cannot be loaded. Not part of a wheel,
// which one build makes for every Python.
#include <pybind11/pybind11.h>

#include "build_facts.h"

PYBIND11_MODULE(_build_facts, m) {
  m.doc() = "Facts about the native build of dlp_fast.";
  m.def("build_facts", &dlp::build_facts,
        "Compiler, CUDA version, architectures and the SIMD levels of this processor, as JSON.");
}

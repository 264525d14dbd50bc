// The stable-ABI face's checks and its guard. Every message names the argument, what was expected and what came.
//
// No C++ exception leaves this module: libtorch may have been built with another C++ runtime or unwinder, and an
// exception that two of them unwind ends the process. Each op is registered by DLP_BOX, which catches inside and
// lets libtorch throw; work on libtorch's threads goes through dlp::parallel_for, which does the same.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace dlp {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Text of a message's part: without iostreams, whose locale is not set up where libstdc++ is linked statically.
inline std::string text_of(const char* text) { return text; }
inline std::string text_of(const std::string& text) { return text; }
template <class Number>
  requires std::is_arithmetic_v<Number>
std::string text_of(Number number) {
  return std::to_string(number);
}

template <class... Parts>
[[noreturn, gnu::noinline, gnu::cold]] void fail(const Parts&... parts) {
  std::string text;
  ((text += text_of(parts)), ...);
  throw std::runtime_error(text);
}

inline std::string shape_text(const Tensor& t) {
  std::string text = "[";
  for (int64_t d = 0; d < t.dim(); ++d) text += (d ? ", " : "") + std::to_string(t.size(d));
  return text + "]";
}

// torch's parallel_for, with the first exception of a thread thrown again here and not through libtorch's frames.
template <class Body>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Body& body) {
  std::exception_ptr first;
  std::mutex lock;
  std::atomic<bool> failed{false};
  torch::stable::parallel_for(begin, end, grain, [&](int64_t from, int64_t to) noexcept {
    if (failed.load(std::memory_order_relaxed)) return;
    try {
      body(from, to);
    } catch (...) {
      const std::lock_guard<std::mutex> held(lock);
      if (!first) first = std::current_exception();
      failed.store(true, std::memory_order_relaxed);
    }
  });
  if (first) std::rethrow_exception(first);
}

namespace detail {

constexpr size_t kMessageSize = 1024;

inline void copy_message(const char* what, char* message) noexcept {
  std::strncpy(message, what, kMessageSize - 1);
  message[kMessageSize - 1] = '\0';
}

// Nothing is thrown out of here: true, or false with the text of what was thrown.
template <auto boxed>
[[gnu::noinline]] bool ran(StableIValue* stack, uint64_t inputs, uint64_t outputs, char* message) noexcept {
  try {
    boxed(stack, inputs, outputs);
    return true;
  } catch (const std::exception& error) {
    copy_message(error.what(), message);
  } catch (...) {
    copy_message("dlp_fast: an op threw something that is no std::exception", message);
  }
  return false;
}

// libtorch throws in its own code; this frame has no destructor, so unwinding it needs nothing of this module.
template <auto boxed>
void guarded(StableIValue* stack, uint64_t inputs, uint64_t outputs) {
  char message[kMessageSize];
  if (!ran<boxed>(stack, inputs, outputs, message)) aoti_torch_check(false, "dlp_fast", "csrc", 0, message);
}

}  // namespace detail
}  // namespace dlp

#define DLP_BOX(function) (&dlp::detail::guarded<TORCH_BOX(function)>)

#define DLP_CHECK(cond, ...)                              \
  do {                                                    \
    if (!(cond)) [[unlikely]]                             \
      dlp::fail("dlp_fast: ", __VA_ARGS__);               \
  } while (false)
#define DLP_CHECK_DIM(x, n)                                                                              \
  DLP_CHECK((x).dim() == (n), #x " must have ", n, " dimensions, got ", (x).dim(), " in shape ", \
            dlp::shape_text(x))
#define DLP_CHECK_DTYPE(x, type, name)                                                               \
  DLP_CHECK((x).scalar_type() == (type), #x " must be " name ", got scalar type ",                 \
            static_cast<int>((x).scalar_type()))
#define DLP_CHECK_CONTIGUOUS(x) DLP_CHECK((x).is_contiguous(), #x " must be contiguous; call .contiguous() first")

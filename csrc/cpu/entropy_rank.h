// CPU kernels of entropy ranking on raw pointers; the caller brings the threads.
#pragma once

#include <cstdint>
#include <functional>

namespace dlp::cpu {

constexpr int64_t kHistogramBins = 2048;

enum class Element { kFloat, kHalf, kBfloat16 };
enum class LabelType { kNone, kInt32, kInt64 };

struct Logits {
  const void* data;
  Element element;
  int64_t rows, classes, row_stride;  // in elements; the elements of a row are contiguous
};

struct Labels {
  const void* data = nullptr;
  LabelType type = LabelType::kNone;
};

// Scores to choose from, group by group: one group without labels, else one for each class.
struct Scores {
  const float* data;
  int64_t rows;
  Labels labels;
  int64_t groups;
  bool largest;
};

// First offending row, or `rows` where there is none.
struct Faults {
  int64_t score, label;
};

// Runs body(0..count-1), on several threads where there are several.
using Parallel = std::function<void(int64_t count, const std::function<void(int64_t)>& body)>;

// Functions on a range of rows, one set for each instruction set.
struct RankKernels {
  const char* name;
  // Writes entropy in bits (NaN for a row with a number that is not finite) and the first class of the
  // largest logit.
  void (*row_entropy)(const Logits& logits, int64_t begin, int64_t end, float* entropy, int32_t* top);
  // hist[group * 2048 + digit] of the rows whose higher digits are prefix[group]; faults are found at level
  // 0.
  Faults (*histogram)(const Scores& scores, int64_t begin, int64_t end, int level, const uint32_t* prefix,
                      uint32_t* hist);
  // Appends key and id at cursor[group], in the order of ids, of each row whose key >> shift is at most
  // limit[group]; after ties[group] rows equal to the limit, the limit is lowered by one. All three arrays
  // are used up.
  void (*compact)(const Scores& scores, int64_t begin, int64_t end, int shift, int64_t* limit, int64_t* ties,
                  int64_t* cursor, uint32_t* keys, int64_t* ids);
};

const RankKernels& rank_kernels();           // the best of this processor
const RankKernels* rank_kernels_avx2();      // null where this build has none
const RankKernels* rank_kernels_avx512();

// The `count` best of each group (all of a smaller one), best first, ties by the smaller id; packed group
// after group. Scores that are not finite and labels outside [0, groups) are reported, and such labels are
// left out.
Faults select(const Scores& scores, int64_t count, int64_t threads, const Parallel& parallel, int64_t* chosen,
              int64_t* counts);

}  // namespace dlp::cpu

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
  // Key, id and group of each row whose key is at most limit[group], in the order of ids; of the rows equal to the
  // limit only the first ties[group], which are used up. How many there are; -1 where there may be more than
  // `capacity`, a score is not finite, or a label is out of range.
  int64_t (*collect)(const Scores& scores, int64_t begin, int64_t end, const uint32_t* limit, int64_t* ties,
                     int64_t capacity, uint32_t* keys, int64_t* ids, uint8_t* group);
};
constexpr int64_t kCollectGroups = 64;  // most groups that `collect` takes

const RankKernels& rank_kernels();           // the best of this processor
const RankKernels* rank_kernels_avx2();      // null where this build has none
const RankKernels* rank_kernels_avx512();

// The `count` best of each group (all of a smaller one), best first, ties by the smaller id; packed group
// after group. Scores that are not finite and labels outside [0, groups) are reported, and such labels are
// left out.
Faults select(const Scores& scores, int64_t count, int64_t threads, const Parallel& parallel, int64_t* chosen,
              int64_t* counts);

// The same where few are wanted: thresholds from a sample of the rows, then one pass that collects what is below them.
// False where that did not work out and nothing is written: too many wanted, ties, numbers that are not finite.
bool select_below_thresholds(const Scores& scores, int64_t count, int64_t threads, const Parallel& parallel,
                             int64_t* chosen, int64_t* counts);

// The `wanted` smallest of a group's candidates, which come in the order of ids.
void choose_sorted(const uint32_t* keys, const int64_t* ids, int64_t count, int64_t wanted, int64_t* out);

}  // namespace dlp::cpu

// CUDA launchers of entropy ranking on raw device pointers. None of them waits for the device or allocates.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cpu/entropy_rank.h"

namespace dlp::cuda {

using cpu::Element;
using cpu::Labels;
using cpu::LabelType;
using cpu::Logits;
using cpu::Scores;

// Selection works on the composite number (key << id_bits) | id, which no two rows share, so that ties need
// no care. It is narrowed digit by digit from the top; every count is known on the host from rows and groups
// alone.
struct Plan {
  int id_bits, bits, passes;
  int64_t bins;
};
Plan make_plan(int64_t rows, int64_t groups);

// Device memory of one selection; `hist` starts as zeros, the rest is set by the kernels.
struct State {
  uint32_t* hist;       // [groups, bins]
  uint64_t* prefix;     // [groups], the digits so far; at the end the largest composite that is chosen
  int64_t* wanted;      // [groups], still to be taken from the rows with this prefix; 0 once it is settled
  int64_t* counts;      // [groups], rows to choose: min(count, rows of the group)
  uint32_t* progress;   // [3]: groups not settled, winners written, blocks that have counted; starts as zeros
  int64_t* composite;   // [size], winners in no order, then the largest int64
  int32_t* group;       // [size], their groups, then the number of groups
  int64_t size;
  int64_t* faults;      // [2], see cpu::Faults
};

// low_hist [2048] and class_hist [classes, 2048] (either may be null) receive the first digit of select_rows.
// Without labels the class of a row is its largest logit.
cudaError_t row_entropy(const Logits& logits, const Labels& labels, float* entropy, int32_t* top, uint32_t* low_hist,
                        uint32_t* class_hist, cudaStream_t stream);

// first_counted: `hist` holds the first digit already.
cudaError_t select_rows(const Scores& scores, int64_t count, const Plan& plan, const State& state, bool first_counted,
                        cudaStream_t stream);

// Both choices of few rows in one launch: a block for the lowest, one for each class. `staging` [classes, most] and
// `finished` (starts as 0) are used where per_class > 0; `high` holds what it is to hold, then -1.
struct FewChoices {
  Scores scores;  // without labels: the lowest alone; groups: how many classes
  int64_t lowest, per_class;
  int id_bits;
  int64_t* low;
  int64_t* high;
  int64_t high_size;
  int64_t* counts;
  int64_t* faults;
  int64_t* staging;
  uint32_t* finished;
};
bool fits_few(int64_t rows, int64_t classes, int64_t lowest, int64_t per_class);
cudaError_t choose_few(const FewChoices& choices, cudaStream_t stream);
cudaError_t gather_groups(const int32_t* group, const int64_t* order, int64_t size, int32_t* out, cudaStream_t stream);
// out[i] = id of sorted[order[i]], or -1 behind the winners; a null order is the identity.
cudaError_t write_ids(const int64_t* sorted, const int64_t* order, int64_t size, int id_bits, int64_t* out,
                      cudaStream_t stream);

}  // namespace dlp::cuda
